"""How far does a network see? The effective receptive field of any timm model, in numbers.

    python examples/erf_of_any_timm_model.py convnext_atto --side 224 --pretrained

The papers' protocol is `effective_receptive_field(model, photos, "replknet")`: 50 validation
images at 1024 x 1024. Noise and random weights, as here, show what the architecture alone allows.
"""

import argparse

import timm
import torch

import seewide  # noqa: F401 - registers the large-kernel networks with timm
from seewide.analysis.erf import draw_erf, effective_receptive_field

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("models", nargs="*", default=["test_convnext", "unireplknet_a"])
parser.add_argument("--side", type=int, default=128, help="pixels")
parser.add_argument("--images", type=int, default=4)
parser.add_argument("--pretrained", action="store_true", help="download timm's weights")
parser.add_argument("--picture", help="save the maps, side by side, to this file")
options = parser.parse_args()

torch.manual_seed(0)
images = torch.randn(options.images, 3, options.side, options.side)
erfs = {}
for name in options.models:
    model = timm.create_model(name, pretrained=options.pretrained)
    erfs[name] = effective_receptive_field(model, images, progress=True)
    ratios = erfs[name].area_ratios().items()
    print(f"{name}: " + ", ".join(f"{t:.0%} of it within {r:.1%}" for t, r in ratios))
if options.picture:
    print("drawn:", draw_erf(erfs, options.picture))
