"""Figures: one palette, one type size, no decoration that carries no number.

Every function draws on a `Figure` of its own (never pyplot, so no global state and no window), and
saves atomically; the ending of `path` chooses the format (`.png`, `.svg`, `.pdf`).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seewide.errors import InputError, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1f2933", "#9aa5b1"
# Distinguishable with every common colour blindness and in grey (after Okabe and Ito 2008).
PALETTE = ("#1f6fb2", "#e07b39", "#2a9d76", "#b5559b", "#8c6d31")
MORE = ("#c9a66b", "#7fb7d9", "#5c6f7f", "#c7ced6")  # for parts of a whole beyond five
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",  # ships with matplotlib: the same picture on every machine
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": FAINT,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "axes.titlepad": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": "#e4e7eb",
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "figure.dpi": 110,
    "savefig.dpi": 160,
    "savefig.bbox": "tight",
    "savefig.facecolor": "white",
}


def draw_curves(metrics: Sequence[Mapping[str, float]], path: str | os.PathLike) -> Path:
    """Loss on the left, accuracy in percent on the right, over epochs.

    Args:
        metrics: one mapping per epoch. `epoch` is the abscissa (default: the position, from 1);
            every key ending in `loss` is a curve on the left, every key containing `top` (as in
            `val_top1`, in percent) a curve on the right. Epochs may lack a key.
    """
    losses = _keys(metrics, lambda key: key.endswith("loss"))
    accuracies = _keys(metrics, lambda key: "top" in key)
    if not metrics or not (losses or accuracies):
        raise InputError("no curves to draw: the metrics hold no key with `loss` or `top` in it")
    panels = [panel for panel in (("loss", losses), ("accuracy (%)", accuracies)) if panel[1]]
    with style():
        figure, axes = canvas(1, len(panels), width=4.6 * len(panels), height=3.2)
        for axis, (title, keys) in zip(axes, panels, strict=True):
            for colour, key in zip(colours(len(keys)), keys, strict=True):
                points = [
                    (row.get("epoch", position), row[key])
                    for position, row in enumerate(metrics, start=1)
                    if row.get(key) is not None and math.isfinite(row[key])
                ]
                x, y = zip(*points, strict=True) if points else ((), ())
                # The last value goes into the legend: beside the lines, two would collide.
                last = "" if not y else f"  {y[-1]:.3f}" if keys is losses else f"  {y[-1]:.1f}"
                label = key.replace("_", " ") + last
                axis.plot(x, y, color=colour, label=label, marker="o" if len(y) < 2 else None)
            axis.set_title(title)
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axis.grid(axis="y")
            axis.legend(fontsize=9)
        return save(figure, path)


def draw_confusion(matrix: np.ndarray, class_names: Sequence[str], path: str | os.PathLike) -> Path:
    """Rows are the true classes, columns the predicted ones; the shade is the share of the row.

    Args:
        matrix: (C, C) counts, `matrix[true, predicted]`; lists, arrays and CPU tensors do.
        class_names: C names. Counts are printed up to 20 classes, names up to 60: beyond that
            they would not be readable, and the shade tells the story.
    """
    counts = np.asarray(matrix)
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise InputError(
            f"a confusion matrix of {classes} classes is ({classes}, {classes}), got {counts.shape}"
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    side = min(max(3.6, 0.42 * classes + 1.6), 11.0)
    with style():
        figure, (axis,) = canvas(1, 1, width=side + 0.5, height=side)
        image = axis.imshow(shares, cmap=_one_hue(), norm=_eye_for_the_small())
        if classes <= 20:
            for (row, column), count in np.ndenumerate(counts):
                if count:
                    colour = "white" if shares[row, column] > 0.5 else INK
                    axis.text(column, row, f"{count:g}", ha="center", va="center",
                              fontsize=8, color=colour)  # fmt: skip
        if classes <= 60:
            size = 9 if classes <= 20 else 6
            upright = max(len(str(name)) for name in class_names) * classes > 40
            axis.set_xticks(range(classes), class_names, fontsize=size, rotation=90 * upright)
            axis.set_yticks(range(classes), class_names, fontsize=size)
        right = np.trace(counts) / max(counts.sum(), 1)
        axis.set_title(f"{int(counts.sum())} images, {right:.1%} right")
        axis.set_xlabel("predicted")
        axis.set_ylabel("true")
        axis.tick_params(length=0)
        axis.spines[:].set_visible(False)
        bar = figure.colorbar(image, ax=axis, fraction=0.04, pad=0.03, format=_percent)
        bar.outline.set_visible(False)
        bar.set_label("share of the true class")
        return save(figure, path)


def draw_bars(
    bars: Mapping[str, tuple[float, float, float]], unit: str, path: str | os.PathLike
) -> Path:
    """Horizontal bars from zero, the figure beside each.

    Args:
        bars: label -> (value, low, high); the thin line spans low to high.
        unit: what the numbers are, such as "milliseconds per batch of 8 (less is better)".
    """
    if not bars:
        raise InputError("no bars to draw")
    values, lows, highs = np.array(list(bars.values()), dtype=float).T
    rows = np.arange(len(bars))
    with style():
        figure, (axis,) = canvas(1, 1, width=7.2, height=0.9 + 0.5 * len(bars))
        axis.barh(rows, values, height=0.62, color=colours(len(bars)))
        axis.hlines(rows, lows, highs, color=INK, linewidth=1)
        for row, value, high in zip(rows, values, highs, strict=True):
            axis.annotate(f"{value:.3g}", (max(value, high), row), xytext=(5, 0), va="center",
                          textcoords="offset points")  # fmt: skip
        axis.set_yticks(rows, bars)
        axis.invert_yaxis()
        axis.set_xlim(0, highs.max() * 1.12)
        axis.set_xlabel(unit)
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        return save(figure, path)


def draw_samples(
    images: Sequence[np.ndarray],
    captions: Sequence[str],
    path: str | os.PathLike,
    columns: int = 8,
    marked: Sequence[bool] = (),
) -> Path:
    """A grid of images with a caption over each.

    Args:
        images: (H, W) grey or (H, W, 3) colour, 0..1 or uint8.
        captions: one per image.
        marked: True sets the caption in orange, for what deserves a look, such as mistakes.
    """
    if not len(images) or len(images) != len(captions):
        raise InputError(f"as many captions as images, got {len(captions)} and {len(images)}")
    rows = math.ceil(len(images) / columns)
    with style():
        figure, axes = canvas(rows, columns, width=1.05 * columns, height=1.25 * rows)
        for axis in axes:
            axis.set_axis_off()
        marked = itertools.chain(marked, itertools.repeat(False))
        for axis, image, caption, mark in zip(axes, images, captions, marked):  # noqa: B905 - endless
            axis.imshow(image, cmap="gray_r" if np.ndim(image) == 2 else None)
            axis.set_title(caption, fontsize=9, loc="center", pad=3,
                           color=PALETTE[1] if mark else INK)  # fmt: skip
        return save(figure, path)


def style():
    """Context in which to make and save a figure of this look."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its rows * columns axes, row by row."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).flat)


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Save atomically, in the format that the ending of `path` says."""
    return write_atomically(
        path, lambda scratch: figure.savefig(scratch, facecolor="white", bbox_inches="tight")
    )


def _keys(metrics, wanted) -> list[str]:
    """Keys of the rows in order of appearance."""
    return list(dict.fromkeys(key for row in metrics for key in row if wanted(key)))


def colours(count: int) -> list[str]:
    """As many of the palette, from its beginning again where there are more."""
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def _percent(value: float, _position=None) -> str:
    return f"{value:.0%}"


def _one_hue():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "seewide", ["#ffffff", "#a9cbe6", PALETTE[0], "#0b2f52"]
    )


def _eye_for_the_small():
    """0..1, with the rare mistakes darker than they would be on a linear scale."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.6, vmin=0, vmax=1)
