"""Figures of detections: boxes and masks on an image, precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from seewide.errors import write_atomically


def draw_objects(image: Any, objects: Sequence[Mapping[str, Any]]) -> Figure:
    """An image with a box, the name and the score of each object, and its mask if it has one.

    Args:
        image: RGB, PIL or (H, W, 3).
        objects: {"name", "score", "box" (x1, y1, x2, y2)[, "mask" in COCO's run lengths]}.
    """
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(8, 8 * height / width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels)
    axes.axis("off")
    names = sorted({entry["name"] for entry in objects})
    colors = {name: colormaps["tab20"](i % 20) for i, name in enumerate(names)}
    for entry in objects:
        color = colors[entry["name"]]
        if "mask" in entry:
            axes.imshow(_overlay(entry["mask"], color))
        x1, y1, x2, y2 = entry["box"]
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, lw=1.5))
        label = f"{entry['name']} {entry['score']:.2f}"
        axes.text(x1, y1, label, color="white", fontsize=7, va="bottom",
                  bbox={"facecolor": color, "pad": 1, "edgecolor": "none"})  # fmt: skip
    axes.set(xlim=(0, width), ylim=(height, 0))
    return figure


def _overlay(mask: Mapping[str, Any], color: Sequence[float]) -> np.ndarray:
    from seewide.errors import require

    coder = require("faster_coco_eval.core.mask", extra="detection")
    shape = coder.decode({"size": mask["size"], "counts": mask["counts"].encode()})
    overlay = np.zeros((*shape.shape, 4), np.float32)
    overlay[shape > 0] = (*color[:3], 0.45)
    return overlay


def draw_precision_recall(curves: Mapping[str, Sequence[float]], path: Path) -> Path:
    """Precision over recall of each class.

    Args:
        curves: precision at recalls 0, 0.01 .. 1 by class name; -1 where there is none.
        path: of the image file.
    """
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    recall = np.linspace(0, 1, 101)
    for i, (name, precision) in enumerate(curves.items()):
        values = np.asarray(precision)
        axes.plot(recall, np.where(values < 0, np.nan, values), label=name if i < 20 else None)
    axes.set(xlabel="recall", ylabel="precision at IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))
    if curves:
        axes.legend(fontsize=7)
    return write_atomically(path, lambda scratch: figure.savefig(scratch, dpi=150))


def draw_label_map(image: Any, label_map: np.ndarray) -> Figure:
    """An image with its classes as translucent colours.

    Args:
        image: RGB, PIL or (H, W, 3).
        label_map: (H, W) class indices.
    """
    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    figure = Figure(figsize=(8, 8 * height / width))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.imshow(pixels)
    axes.imshow(colormaps["tab20"](label_map % 20), alpha=0.5)
    axes.axis("off")
    return figure
