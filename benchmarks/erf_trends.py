"""Does the receptive field grow as the papers say? Small networks, one budget, real photographs.

    python -m benchmarks.erf_trends ../shared/data/classification/flowers128

PeLK (arXiv 2403.07589, Table 9) orders trained networks by the area that holds a share of their
effective receptive field: ConvNeXt < RepLKNet < SLaK < PeLK < PeLK-101. UniConvNet (arXiv
2508.09000, Figure 6) shows fields that are closer to a Gaussian than its rivals'. Here all of them
are narrow and short, see the same photographs in the same order for the same number of steps, and
everything is 4/7 of the papers' size: photographs of 128 pixels for 224, of 576 for 1024, and
kernels to the next odd size, so that training reaches every weight that it reaches in the papers.

Half an hour on one core. A run that was stopped goes on where it was: each network and seed leaves
a file in runs/erf_trends. The table and the pictures in benchmarks/results are written at the end.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn
from torchvision.datasets import ImageFolder
from torchvision.transforms.functional import normalize, pil_to_tensor

from benchmarks.conditions import RESULTS, Settings, write_csv
from seewide.analysis.erf import ERF, Protocol, draw_erf, effective_receptive_field
from seewide.analysis.figures import draw_bars
from seewide.analysis.gaussian import gaussian_shape
from seewide.errors import write_atomically
from seewide.models.lsnet import LSNet
from seewide.models.pelk import PeLK
from seewide.models.replknet import RepLKNet
from seewide.models.slak import SLaK
from seewide.models.uniconvnet import UniConvNet
from seewide.models.unireplknet import UniRepLKNet

SMALL = {"num_classes": 5, "depths": (1, 1, 3, 1), "dims": (16, 32, 64, 128)}
SCALED = {"ls_init_value": 1.0, **SMALL}  # 1e-6 is for long training
THIN = {"width_factor": 1.0, **SCALED}

NETWORKS: dict[str, Callable[[], nn.Module]] = {  # 4/7 of ...
    "ConvNeXt": lambda: ConvNeXt(kernel_sizes=(5, 5, 5, 5), **SCALED),  # 7
    "UniRepLKNet": lambda: UniRepLKNet(kernel_sizes=(3, 7, (7, 3), 7), **SCALED),  # 3, 13
    "RepLKNet": lambda: RepLKNet(kernel_sizes=(17, 17, 15, 7), **SMALL),  # 31, 29, 27, 13
    "SLaK": lambda: SLaK(kernel_sizes=(29, 27, 27, 7), **THIN),  # 51, 49, 47, 13
    "PeLK": lambda: PeLK(kernel_sizes=(29, 27, 27, 7), **THIN),  # 51, 49, 47, 13
    "PeLK-101": lambda: PeLK(kernel_sizes=(57, 39, 39, 7), center=7, **THIN),  # 101, 69, 67, 13
    "LSNet": lambda: LSNet(  # 7, strides of 8 to 64
        num_classes=5, img_size=128, depths=(1, 2, 3, 2), dims=(16, 32, 64, 128), large_kernel=5
    ),
    "UniConvNet": lambda: UniConvNet(  # 7, 9, 11
        kernel_sizes=(5, 5, 7), group_channels=8, **SCALED
    ),
}
SEEDS = (0, 1, 2)
STEPS, BATCH, LR = 300, 32, 2e-3
PROTOCOL = Protocol(images=50, side=576)
RUNS = Path("runs/erf_trends")


def photographs(folder: Path) -> tuple[Tensor, Tensor]:
    """(N, 3, H, W) uint8 and (N,) classes."""
    pictures, classes = zip(*ImageFolder(str(folder)), strict=True)
    return torch.stack([pil_to_tensor(picture) for picture in pictures]), torch.tensor(classes)


def prepared(x_NCHW: Tensor) -> Tensor:
    return normalize(x_NCHW / 255, IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)


def train(model: nn.Module, x_NCHW: Tensor, y_N: Tensor, seed: int) -> None:
    """STEPS updates on photographs that are shifted by up to 8 pixels and flipped."""
    draw = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), LR, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, STEPS, pct_start=0.15)
    model.train()
    for step in range(STEPS):
        if step % (len(y_N) // BATCH) == 0:
            order = iter(torch.randperm(len(y_N), generator=draw).split(BATCH))
        pick = next(order)
        top, left, flip = (torch.randint(high, (), generator=draw).item() for high in (17, 17, 2))
        H, W = x_NCHW.shape[2:]
        batch = F.pad(prepared(x_NCHW[pick]), (8, 8, 8, 8))[..., top : top + H, left : left + W]
        loss = F.cross_entropy(model(batch.flip(-1) if flip else batch), y_N[pick])
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()
def top1(model: nn.Module, x_NCHW: Tensor, y_N: Tensor) -> float:
    """Percent right."""
    model.eval()
    right = sum(
        (model(prepared(x)).argmax(1) == y).sum().item()
        for x, y in zip(x_NCHW.split(64), y_N.split(64), strict=True)
    )
    return 100 * right / len(y_N)


def measure(name: str, seed: int, data: tuple[Tensor, ...]) -> Path:
    """Train one network; its fields before and after, and what it learned, in one file."""
    path = RUNS / f"{name}-{seed}.npz"
    if path.exists():
        return path
    x_train, y_train, x_val, y_val = data
    photos = prepared(x_val[:: len(x_val) // PROTOCOL.images])
    torch.manual_seed(seed)
    model = NETWORKS[name]()
    before = effective_receptive_field(model, photos, PROTOCOL)
    train(model, x_train, y_train, seed)
    after = effective_receptive_field(model, photos, PROTOCOL)
    accuracy = top1(model, x_val, y_val)
    print(f"{name}, seed {seed}: {accuracy:.1f}% right, field {after.area_ratios()}", flush=True)
    return write_atomically(
        path,
        lambda scratch: np.savez_compressed(
            scratch,
            untrained=before.contribution.astype(np.float32),
            trained=after.contribution.astype(np.float32),
            top1=accuracy,
            parameters=sum(p.numel() for p in model.parameters()),
        ),
    )


def rows() -> list[tuple]:
    """A line per network and measure: mean, least and largest over the seeds, before and after."""
    lines = []
    for name in NETWORKS:
        runs = [np.load(RUNS / f"{name}-{seed}.npz") for seed in SEEDS]
        found: dict[str, tuple[list[float], list[float]]] = {}
        for key, side in (("untrained", 0), ("trained", 1)):
            for run in runs:
                field = ERF(run[key].astype(np.float64), PROTOCOL.images)
                for measure, value in numbers(field).items():
                    found.setdefault(measure, ([], []))[side].append(value)
        accuracy = [float(run["top1"]) for run in runs]
        parameters = int(runs[0]["parameters"])
        for measure, (before, after) in found.items():
            lines.append((name, parameters, f"{statistics.mean(accuracy):.1f}", measure,
                          *_spread(before), *_spread(after)))  # fmt: skip
    return lines


def numbers(field: ERF) -> dict[str, float]:
    """What the papers print, in percent, and what they draw, as numbers."""
    shape = gaussian_shape(field)
    return {
        **{f"r({t:.0%})": 100 * r for t, r in field.area_ratios().items()},
        **{f"linear r({t:.0%})": 100 * field.area_ratio(t, linear=True) for t in (0.5, 0.99)},
        "gaussianity": 100 * shape.gaussianity,
        "sigma": shape.sigma,
        "monotonicity": 100 * shape.monotonicity,
    }


def _spread(values: list[float]) -> tuple[str, str, str]:
    return tuple(f"{v:.3g}" for v in (statistics.mean(values), min(values), max(values)))


def draw(lines: list[tuple]) -> None:
    """Fields of the first seed, before and after; two measures of all, their extent as a line."""
    for state in ("untrained", "trained"):
        fields = {
            name: ERF(np.load(RUNS / f"{name}-{SEEDS[0]}.npz")[state].astype(float), 50)
            for name in NETWORKS
        }
        draw_erf(fields, RESULTS / f"erf-trends-{state}.png")
    for measure, file, unit in (
        ("r(30%)", "area", "share of the picture with 30% of the scores (%)"),
        ("gaussianity", "gaussianity", "contribution where the best Gaussian has it (%)"),
    ):
        bars = {line[0]: tuple(map(float, line[7:10])) for line in lines if line[3] == measure}
        draw_bars(bars, unit, RESULTS / f"erf-trends-{file}.png")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, help="photographs in train/CLASS and val/CLASS")
    folder = parser.parse_args().folder
    data = (*photographs(folder / "train"), *photographs(folder / "val"))
    for seed in SEEDS:
        for name in NETWORKS:
            measure(name, seed, data)
    lines = rows()
    header = ("network", "parameters", "top-1", "measure", "untrained", "least", "largest",
              "trained", "least", "largest")  # fmt: skip
    print(write_csv("erf-trends", header, lines, Settings()))
    draw(lines)
