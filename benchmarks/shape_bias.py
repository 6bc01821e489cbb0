"""Shape bias of a small network that was fine-tuned to the sixteen classes.

    python -m benchmarks.shape_bias ../shared/data

First it learns flowers (classification/flowers128), then the sixteen classes of Geirhos et al. from
the edge drawings and silhouettes of cue_conflict and from the photographs of imagenet_samples that
belong to one of them; then it decides on the cue-conflict pictures. Four minutes on one core.

What the number means: a network this small, from so few pictures, decides for neither cue most of
the time, and two thirds of what it learned from has no texture. The drawings also show objects
whose shapes the cue-conflict pictures have. So this shows the measurement, not a network.
"""

from __future__ import annotations

import argparse
import csv
import shutil
from pathlib import Path

from rich.console import Console

from benchmarks.conditions import RESULTS, Settings, write_csv
from seewide.analysis.shape_bias import (
    CLASSES,
    ShapeBias,
    draw_shape_bias,
    imagenet_to_16,
    list_cue_conflicts,
    measure_shape_bias,
)
from seewide.preprocess import Preprocess
from seewide.recipes import get, override
from seewide.tasks.classification import ClassificationOptions
from seewide.train import fit
from seewide.train.checkpoint import load_run

NETWORK, SIDE = "unireplknet_a", 64
RUNS = Path("runs/shape_bias")


def sixteen_classes(data: Path, folder: Path) -> Path:
    """A folder per class with its drawings, silhouettes and photographs; every eighth held out."""
    found: dict[str, list[Path]] = {name: [] for name in CLASSES}
    for kind in ("edges", "filled-silhouettes"):
        for name in CLASSES:
            found[name] += sorted((data / "cue_conflict" / kind / name).iterdir())
    members = {i: name for name, ids in zip(CLASSES, imagenet_to_16(), strict=True) for i in ids}
    samples = data / "imagenet_samples"
    with (samples / "labels.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            if name := members.get(int(row["class_index"])):
                found[name].append(samples / "images" / Path(row["file"]).name)
    for name, paths in found.items():
        for number, path in enumerate(paths):
            place = folder / ("train" if number % 8 else "val") / name
            place.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place / f"{number}-{path.name}")
    return folder


def measure(run: Path, data: Path) -> ShapeBias:
    """Of the best weights of a run."""
    model, _, info = load_run(run)
    conflicts = list_cue_conflicts(data / "cue_conflict")
    transform = Preprocess.from_dict(info.preprocess).transform()
    return measure_shape_bias(model.eval(), conflicts, transform)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path, help="classification, cue_conflict, imagenet_samples")
    data = parser.parse_args().data
    shutil.rmtree(RUNS, ignore_errors=True)
    console = Console(width=100)
    small = override(get("small_folder"), {"image_size": SIDE, "epochs": 2}, ClassificationOptions)
    flowers = data / "classification" / "flowers128"
    fit(NETWORK, flowers, small, RUNS / "flowers", recipe_name="small", console=console)
    settings = {"image_size": SIDE, "epochs": 24, "fan_in_init": False}
    tuned = override(get("small_folder"), settings, ClassificationOptions)
    pictures = sixteen_classes(data, RUNS / "pictures")
    fit(NETWORK, pictures, tuned, RUNS / "sixteen", recipe_name="small",
        checkpoint=str(RUNS / "flowers"), console=console)  # fmt: skip
    result = measure(RUNS / "sixteen", data)
    print(result, f"decided: {result.total.decided:.1%}")
    header = ("class", "shape", "texture", "neither", "bias", "low", "high")
    print(write_csv("shape-bias", header, result.rows(), Settings()))
    draw_shape_bias({f"{NETWORK}, fine-tuned": result}, RESULTS / "shape-bias.png")
