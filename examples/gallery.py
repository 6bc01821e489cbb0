"""Draw the receptive fields of the papers' kernels before and after training, in two figures.

    python examples/gallery.py images --steps 300 --out docs/figures

Eight networks that differ in their token mixer learn to classify the folders of `images`; without
it, noise. Layer scales start at 1: with 1e-6 the blocks would contribute nothing before training.
"""

import argparse
from pathlib import Path

import timm
import torch
from torch.utils.data import DataLoader, Subset
from torchvision.datasets import FakeData, ImageFolder

import seewide  # noqa: F401 - registers the large-kernel networks with timm
from seewide.analysis.analyzed_model import AnalyzedModel
from seewide.analysis.erf import draw_erf, effective_receptive_field

SMALL = {"depths": (1, 1, 3, 1), "dims": (16, 32, 64, 128)}
SCALED = {**SMALL, "ls_init_value": 1.0}
NETWORKS = {
    "7 x 7": ("convnext_tiny", SCALED),
    "13 x 13, dilated branches": ("unireplknet_a", SCALED),
    "31 x 31": ("replknet_31b", SMALL),
    "51 x 5 and 5 x 51": ("slak_t", {**SCALED, "width_factor": 1.0}),
    "51 x 51, peripheral": ("pelk_t_dense", SCALED),
    "101 x 101, peripheral": ("pelk101_t", {**SCALED, "width_factor": 1.0}),
    "see large, focus small": ("lsnet_t", {**SMALL, "depths": (1, 2, 3, 2)}),
    "aggregator of 7, 9, 11": ("uniconvnet_a", SCALED),
}
parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("images", nargs="?", help="a folder with a folder of images per class")
parser.add_argument("--steps", type=int, default=2, help="optimizer steps, batch size 8")
parser.add_argument("--out", type=Path, default=Path("gallery"))
options = parser.parse_args()
torch.manual_seed(0)
side = 224 if options.images else 64  # receptive fields are measured at twice this size
data = ImageFolder(options.images) if options.images else FakeData(32, num_classes=4)
data.transform = AnalyzedModel("", torch.nn.Identity()).resizing(side)
classes = len(data.classes) if options.images else data.num_classes
few = torch.stack([data[i * len(data) // 8][0] for i in range(8)])
few = torch.nn.functional.interpolate(few, scale_factor=2, mode="bicubic")
chosen = torch.randint(len(data), (8 * options.steps,))  # the same order for all networks
fields = {"untrained": {}, "trained": {}}
for title, (name, arguments) in NETWORKS.items():
    model = timm.create_model(name, num_classes=classes, **arguments)
    fields["untrained"][title] = effective_receptive_field(model, few)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=1e-3, weight_decay=0.05)
    for x, y in DataLoader(Subset(data, chosen), batch_size=8):
        loss = torch.nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fields["trained"][title] = field = effective_receptive_field(model, few)
    print(f"{title}: loss {loss:.2f}, 50% of the scores within {field.area_ratio(0.5):.1%}")
for state, maps in fields.items():
    print("written:", draw_erf(maps, options.out / f"fields-{state}.png"))
