"""Measure the effective receptive field of any timm model.

    python examples/erf_of_any_timm_model.py convnext_atto --side 224 --pretrained

The papers' protocol is `effective_receptive_field(model, images, "replknet")`: 50 validation
images at 1024 x 1024. Noise and random weights, the defaults here, show the architecture alone.
"""

import argparse

import timm
import torch

import seewide  # noqa: F401 - registers the large-kernel networks with timm
from seewide.analysis.erf import draw_erf, effective_receptive_field
from seewide.analysis.figures import figure_path

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("models", nargs="*", default=["test_convnext", "unireplknet_a"])
parser.add_argument("--side", type=int, default=128, help="pixels")
parser.add_argument("--images", type=int, default=4)
parser.add_argument("--pretrained", action="store_true", help="download timm's weights")
parser.add_argument("--out", help="draw the maps to this file")
options = parser.parse_args()
out = figure_path(options.out) if options.out else None

torch.manual_seed(0)
images = torch.randn(options.images, 3, options.side, options.side)
erfs = {}
for name in options.models:
    model = timm.create_model(name, pretrained=options.pretrained)
    erfs[name] = effective_receptive_field(model, images, progress=True)
    ratios = erfs[name].area_ratios().items()
    print(f"{name}: " + ", ".join(f"{t:.0%} of the scores within {r:.1%}" for t, r in ratios))
if out:
    print("written:", draw_erf(erfs, out))
