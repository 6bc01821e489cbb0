"""Detectors and segmenters from scratch on small data sets, each for the same CPU time.

    python -m benchmarks.dense_training boxes DIR/bccd --seconds 180
    python -m benchmarks.dense_training masks DIR/nuclei
    python -m benchmarks.dense_training classes DIR/camvid

Networks of other libraries learn by the same engine, augmentation and optimizer. Each takes as many
optimizer steps as fit into `--seconds` of this process's CPU time, by the cost of a few steps that
are measured before. No setting is tuned for any of them. The floors of the table learn nothing
from pixels. Runs are saved in runs/dense_training; finished ones are not repeated.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.conditions import Settings, write_csv
from benchmarks.dense_baselines import (
    SmpSegmenter,
    TorchvisionDetector,
    constant_boxes,
    constant_labels,
    threshold_objects,
)
from seewide._version import __version__
from seewide.console import make_console
from seewide.recipes import Recipe, get
from seewide.seeding import seed_all
from seewide.tasks import DataSplits, Task
from seewide.train.build import build_backbone, init_by_fan_in
from seewide.train.checkpoint import RunConfig
from seewide.train.evaluate import compute_metric, make_task
from seewide.train.feed import make_eval_loader
from seewide.train.loop import Run
from seewide.train.processes import Processes
from seewide.train.runtime import Runtime

RUNS = Path("runs/dense_training")
# What is compared: system and backbone of ours, or the name of another library's network.
ENTRIES = {
    "boxes": (
        ("retinanet", "unireplknet_a"), ("retinanet", "lsnet_t"), ("retinanet", "convnext_atto"),
        ("torchvision", "fasterrcnn_mobilenet_v3_large_fpn"),
    ),
    "masks": (("mask_rcnn", "lsnet_t"), ("mask_rcnn", "convnext_atto")),
    "classes": (
        ("semantic_fpn", "lsnet_t"), ("semantic_fpn", "unireplknet_a"), ("smp", "unet resnet18"),
        ("upernet", "unireplknet_a"), ("upernet", "convnext_atto"),
    ),
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "boxes": {"short": 160, "long": 480, "scales": ()},
    "masks": {"short": 160, "long": 480, "scales": ()},
    "classes": {"short": 120, "long": 480, "crop": 96, "ignore": 11},
}


def recipe_of(kind: str, system: str) -> Recipe:
    """`small_detection` or `small_segmentation` with the settings of the comparison."""
    base = get("small_segmentation" if kind == "classes" else "small_detection")
    options = {**base.options, **SETTINGS[kind]}
    if system not in ("torchvision", "smp"):
        options["system"] = system
    elif kind != "classes":
        options["system"] = "retinanet"  # boxes without masks
    size = {"boxes": 2, "masks": 2, "classes": 4}[kind]
    return replace(base, options=options, batch_size=size, warmup_epochs=0.0, warmup_steps=10)


def build(task: Task, splits: DataSplits, recipe: Recipe, system: str, network: str) -> nn.Module:
    """A model with new weights."""
    classes = len(splits.facts["class_names"])
    if system == "torchvision":
        return TorchvisionDetector(classes, recipe.options["short"], recipe.options["long"])
    if system == "smp":
        return SmpSegmenter(*network.split(), classes)
    layer_scale = 0.0 if network.startswith("lsnet") else recipe.layer_scale
    backbone = build_backbone(network, task.backbone_options(splits.facts), layer_scale=layer_scale)
    init_by_fan_in(backbone)
    return task.build(backbone, splits.facts)


def train(kind: str, data: Path, system: str, network: str, seconds: float, seed: int) -> dict:
    """One run, as a row of the table."""
    folder = RUNS / f"{data.name}-{seconds:g}s" / f"{system}-{network}-{seed}".replace(" ", "-")
    result = folder / "result.json"
    if result.is_file():
        return json.loads(result.read_text())
    recipe = recipe_of(kind, system)
    task = make_task(recipe)
    splits = task.open(str(data))

    def make_run(steps: int, folder: Path) -> Run:
        seed_all(seed)
        model = build(task, splits, recipe, system, network)
        preprocess = task.preprocess(getattr(model, "backbone", model))
        chosen = replace(recipe, steps=steps, val_every=10_000)
        config = RunConfig(
            network, splits.name, "changed", chosen, Runtime(seed=seed, workers=0, device="cpu"),
            splits.facts, preprocess, {}, "", {"seewide": __version__},
        )  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        return Run(config, folder, splits, task, model, Processes("cpu"), make_console())

    steps = max(4, round(seconds / _seconds_per_step(make_run(10, folder / "measure"))))
    run = make_run(steps, folder)
    started = time.process_time()
    row = run.train().history[-1]
    found = {
        "system": system, "network": network, "seed": seed,
        "parameters": sum(p.numel() for p in run.trainer.model.parameters()),
        "steps": steps, "images": steps * recipe.batch_size,
        "cpu_seconds_with_evaluation": time.process_time() - started,
        **{key.removeprefix("val_"): value for key, value in row.items() if key.startswith("val_")},
    }  # fmt: skip
    result.write_text(json.dumps(found, indent=1))
    return found


def _seconds_per_step(run: Run, warm_up: int = 2, steps: int = 4) -> float:
    batches = run.feed.batches(1)
    run.trainer.model.train()
    for number in range(warm_up + steps):
        if number == warm_up:
            started = time.process_time()
        run.trainer.step(1, number, batches, lambda: False)
    return (time.process_time() - started) / steps


class Constant(nn.Module):
    """A predictor in place of a model: of a normalized or 8-bit image."""

    def __init__(self, predict: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.predict = predict

    def forward(self, images: list[Tensor] | Tensor) -> Any:
        return [self.predict(image) for image in images]


def floors(kind: str, data: Path) -> Iterator[dict]:
    """The rows that learn nothing from pixels."""
    task = make_task(recipe_of(kind, ENTRIES[kind][0][0]))
    splits = task.open(str(data))
    classes = len(splits.facts["class_names"])
    if kind == "classes":
        height, width = np.asarray(splits.val[0]["image"]).shape[:2]
        labels_HW = constant_labels(splits.train, classes, (height, width))
        name, model = "the most frequent class at each pixel", Constant(lambda image: labels_HW)
        task.predict = lambda model, batch: model(batch["image"])
    elif kind == "boxes":
        train = splits.train
        found = constant_boxes(getattr(train, "base", train))
        name, model = "the same 100 boxes for every image", Constant(lambda image: dict(found))
    else:
        name = "parts beyond Otsu's threshold"
        model = Constant(_with_channel)
    loader, count = make_eval_loader(splits.val, task, task.preprocess(nn.Identity()), 1, 0)
    precision = Processes("cpu").precision
    metric = compute_metric(model, task, splits.facts, loader, precision, count)
    yield {"system": "no learning", "network": name, **metric.compute()}


def _with_channel(image: Tensor) -> dict[str, Tensor]:
    found = threshold_objects(image.permute(1, 2, 0).numpy())
    return {**found, "masks": found["masks"][:, None]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", choices=ENTRIES)
    parser.add_argument("data", type=Path)
    parser.add_argument("--seconds", type=float, default=180, help="CPU seconds of each training")
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", nargs="*", default=[], help="parts of the names of networks")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = list(floors(given.kind, given.data))
    print(rows, flush=True)
    for system, network in ENTRIES[given.kind]:
        if given.only and not any(word in f"{system} {network}" for word in given.only):
            continue
        for seed in range(given.seeds):
            rows.append(
                train(given.kind, given.data.resolve(), system, network, given.seconds, seed)
            )
            print(rows[-1], flush=True)
    header = list(dict.fromkeys(key for row in rows for key in row))
    cells = [
        [f"{v:.4g}" if isinstance(v, float) else v for v in (row.get(key, "") for key in header)]
        for row in rows
    ]
    name = f"dense-{given.data.resolve().name}-{given.seconds:g}s"
    print(write_csv(name, header, cells, Settings()))


if __name__ == "__main__":
    main()
