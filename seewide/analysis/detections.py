"""Figures of objects or classes on an image, and of precision over recall."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seewide.analysis.figures import image_figure, plain, save, style
from seewide.data.predictions import decode_runs

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DRAWN_LABELS = 25  # objects of an image beyond which no names are written


def plot_objects(axes: Axes, image: Any, objects: Sequence[Mapping[str, Any]]) -> None:
    """An image with a box, the name and the score of each object, and its mask if it has one.

    Args:
        axes: to draw into.
        image: RGB, PIL or (H, W, 3).
        objects: {"name", "box" (x1, y1, x2, y2)[, "score"][, "mask" in COCO's run lengths]}.
    """
    from matplotlib.patches import Rectangle

    pixels = np.asarray(image)
    height, width = pixels.shape[:2]
    axes.imshow(pixels)
    axes.axis("off")
    overlay_HW4 = np.zeros((height, width, 4), np.float32)
    for number, entry in enumerate(objects):
        color = _color(entry["name"])
        if "mask" in entry:  # neighbors of one class differ in brightness
            shade = np.clip(np.asarray(color[:3]) * (0.75 + 0.25 * (number % 3)), 0, 1)
            overlay_HW4[decode_runs(entry["mask"]) > 0] = (*shade, 0.45)
        x1, y1, x2, y2 = entry["box"]
        axes.add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, edgecolor=color, lw=1.2))
        if len(objects) <= DRAWN_LABELS:
            score = f" {entry['score']:.2f}" if "score" in entry else ""
            ground = {"facecolor": color, "pad": 1, "edgecolor": "none"}
            label = plain(entry["name"]) + score
            axes.text(x1, y1, label, color="white", fontsize=6, va="bottom", clip_on=True,
                      bbox=ground)  # fmt: skip
    if overlay_HW4.any():
        axes.imshow(overlay_HW4)
    axes.set(xlim=(0, width), ylim=(height, 0))


def plot_label_map(
    axes: Axes, image: Any, label_HW: np.ndarray, names: Mapping[int, str] | None = None
) -> None:
    """An image with its classes as translucent colors; pixels of value 255 stay as they are.

    Args:
        axes: to draw into.
        image: RGB, PIL or (H, W, 3).
        label_HW: class indices.
        names: of the classes in the legend.
    """
    from matplotlib import colormaps
    from matplotlib.patches import Patch

    colors = colormaps["tab20"]
    overlay_HW4 = colors(label_HW % 20).astype(np.float32)
    overlay_HW4[..., 3] = np.where(label_HW == 255, 0, 0.55)
    axes.imshow(np.asarray(image))
    axes.imshow(overlay_HW4)
    axes.axis("off")
    if names:
        patches = [Patch(color=colors(k % 20), label=plain(name)) for k, name in names.items()]
        axes.legend(handles=patches, fontsize=5, loc="lower right", framealpha=0.7, frameon=True)


def draw_objects(image: Any, objects: Sequence[Mapping[str, Any]], path: Path) -> Path:
    """`plot_objects` as a file."""
    height, width = np.asarray(image).shape[:2]
    figure, axes = image_figure((width, height))
    plot_objects(axes, image, objects)
    return save(figure, path)


def draw_precision_recall(curves: Mapping[str, Sequence[float]], path: Path) -> Path:
    """Precision over recall of each class.

    Args:
        curves: precision at recalls 0, 0.01 .. 1 by class name; -1 where there is none.
        path: of the image file.
    """
    from matplotlib.figure import Figure

    recall = np.linspace(0, 1, 101)
    with style():
        figure = Figure(figsize=(5, 4), layout="constrained")
        axes = figure.subplots()
        for i, (name, precision) in enumerate(curves.items()):
            values = np.asarray(precision)
            label = plain(name) if i < 20 else None
            axes.plot(recall, np.where(values < 0, np.nan, values), label=label)
        axes.set(xlabel="recall", ylabel="precision at IoU 0.5", xlim=(0, 1), ylim=(0, 1.02))
        if curves:
            axes.legend(fontsize=7)
        return save(figure, path)


def _color(name: str) -> tuple[float, ...]:
    """The same color for a name in every image."""
    from matplotlib import colormaps

    return colormaps["tab10"](sum(name.encode()) % 10)
