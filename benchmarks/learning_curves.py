"""Learning curves on real images under one budget, beside networks of timm.

    python -m benchmarks.learning_curves ../shared/data/classification/flowers128
    python -m benchmarks.learning_curves CIFAR10 --side 32 --stem-stride 2 --epochs 6

Each network trains from scratch with the engine of `seewide train` and the recipe `small_folder`:
the same images in the same order, the same number of optimizer steps. None is tuned, so the figures
show that a network learns and how fast it starts; they do not rank what long training reaches.

The baseline is what the colors of an image say alone: nearest neighbors by color histogram,
measured here on the same folders. Runs are saved in runs/learning_curves, and one that was stopped
resumes. PeLK has a quarter of its width and its full kernels of 51 to 13.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from timm.models import register_model

from benchmarks.budget import RECIPE_NAME, make_parser, recipe_of, run_folder
from benchmarks.conditions import RESULTS, Settings, write_csv
from seewide.analysis.figures import Panel, draw_lines, points
from seewide.data import Samples, open_classification
from seewide.models.pelk import PeLK, pelk_t_dense
from seewide.recipes import Recipe
from seewide.train import fit

OURS = ("lsnet_t", "unireplknet_a", "uniconvnet_a", "pelk_narrow")
TIMM = ("convnext_atto", "repvit_m0_9")
NO_LAYER_SCALE = ("lsnet_t", "repvit_m0_9")
RUNS = Path("runs/learning_curves")
BINS, NEIGHBORS = 8, 10


@register_model
def pelk_narrow(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-T of a quarter of the width, dense."""
    return pelk_t_dense(pretrained, **{"dims": (24, 48, 96, 192), **kwargs})


def curve(name: str, data: Path, recipe: Recipe) -> list[dict[str, float]]:
    """One row per epoch; trains unless the run is finished."""
    if name in NO_LAYER_SCALE:
        recipe = replace(recipe, layer_scale=0.0)
    folder = run_folder(RUNS, data, recipe) / name
    return fit(name, data, recipe, folder, workers=0, recipe_name=RECIPE_NAME).history


def accuracy_by_color(train: Samples, val: Samples) -> float:
    """Accuracy (%) of ten nearest neighbors by color: 8 x 8 x 8 bins of RGB, L1 distance."""
    known, asked = histograms(train), histograms(val)
    labels = np.asarray(train.labels)
    correct = 0
    for histogram, label in zip(asked, val.labels, strict=True):
        nearest = np.abs(known - histogram).sum(1).argpartition(NEIGHBORS)[:NEIGHBORS]
        correct += np.bincount(labels[nearest]).argmax() == label
    return 100 * float(correct) / len(val)


def histograms(samples: Samples) -> np.ndarray:
    """(N, 512), each of sum 1."""
    rows = []
    for sample in samples:
        rgb_HW3 = np.asarray(sample["image"]).astype(int) * BINS // 256
        code_HW = (rgb_HW3[..., 0] * BINS + rgb_HW3[..., 1]) * BINS + rgb_HW3[..., 2]
        rows.append(np.bincount(code_HW.ravel(), minlength=BINS**3) / code_HW.size)
    return np.asarray(rows, dtype=np.float32)


def draw(curves: dict[str, list[dict[str, float]]], floor: float, path: Path) -> None:
    """Top-1 of all networks over the epochs, and of colors alone."""
    lines = {name: points(rows, "val_top1") for name, rows in curves.items()}
    longest = max(lines.values(), key=len)
    lines["colors alone"] = [(epoch, floor) for epoch, _ in longest]
    draw_lines([Panel("top-1 (%)", lines, digits=1)], path)


def main() -> None:
    parser = make_parser(__doc__, epochs=8)
    parser.add_argument("--stem-stride", type=int, default=0)
    parser.add_argument("--networks", nargs="+", default=[*OURS, *TIMM])
    given = parser.parse_args()
    recipe = recipe_of(given, stem_stride=given.stem_stride)
    source = open_classification(given.data)
    floor = accuracy_by_color(source.train, source.val)
    print(f"colors alone: {floor:.1f}%", flush=True)
    data = given.data.resolve()
    curves = {name: curve(name, data, recipe) for name in given.networks}
    header = ("network", "epoch", "train loss", "val loss", "top-1", "colors alone")
    rows = [
        (name, row["epoch"], *(f"{row[k]:.4g}" for k in ("train_loss", "val_loss", "val_top1")),
         f"{floor:.1f}")
        for name, history in curves.items()
        for row in history
    ]  # fmt: skip
    print(write_csv(f"learning-{data.name}", header, rows, Settings()))
    draw(curves, floor, RESULTS / f"learning-{data.name}.png")


if __name__ == "__main__":
    main()
