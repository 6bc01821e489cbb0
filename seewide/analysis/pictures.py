"""Figures: one palette, one type size, no decoration that carries no number.

Every function draws on a `Figure` of its own (never pyplot, so no global state and no window), and
saves atomically; the ending of `path` chooses the format (`.png`, `.svg`, `.pdf`).
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
DASHES = ("-", "--", ":", "-.")  # for lines beyond five
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
    panels = [Panel.of("loss", metrics, losses), Panel.of("accuracy (%)", metrics, accuracies, 1)]
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        raise InputError("no curves to draw: the metrics hold no key with `loss` or `top` in it")
    return draw_lines(panels, path)


@dataclass(frozen=True)
class Panel:
    """One axis of `draw_lines`: label -> points of a line, the abscissa an epoch.

    `digits` after the point has the last value of a line in the legend; None: three that count.
    """

    title: str
    lines: Mapping[str, Sequence[tuple[float, float]]]
    digits: int | None = 3

    @classmethod
    def of(
        cls,
        title: str,
        metrics: Sequence[Mapping[str, float]],
        keys: Sequence[str],
        digits: int | None = 3,
    ) -> Panel:
        """A line for each key; epochs may lack it."""
        lines = {key.replace("_", " "): points(metrics, key) for key in keys}
        return cls(title, lines, digits)

    def last(self, line: Sequence[tuple[float, float]]) -> str:
        """The last value in words."""
        if not line:
            return ""
        return f"{line[-1][1]:.3g}" if self.digits is None else f"{line[-1][1]:.{self.digits}f}"


def points(metrics: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the epochs that have a finite value; see `draw_curves`."""
    return [
        (row.get("epoch", position), row[key])
        for position, row in enumerate(metrics, start=1)
        if row.get(key) is not None and math.isfinite(row[key])
    ]


def draw_lines(
    panels: Sequence[Panel], path: str | os.PathLike, columns: int = 2, shared: bool = False
) -> Path:
    """Lines over epochs, panel beside panel.

    Args:
        panels: at least one.
        columns: at most so many panels beside each other.
        shared: one legend below for all panels, which then have the same labels; else each has its
            own, with the last values.
    """
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with style():
        figure, axes = canvas(rows, columns, width=4.6 * columns, height=3.2 * rows)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()
        for axis, panel in zip(axes, panels, strict=False):
            for index, (label, line) in enumerate(panel.lines.items()):
                x, y = zip(*line, strict=True) if line else ((), ())
                # The last value goes into the legend: beside the lines, two would collide.
                axis.plot(
                    x, y, color=PALETTE[index % len(PALETTE)],
                    linestyle=DASHES[index // len(PALETTE) % len(DASHES)],
                    label=label if shared else f"{label}  {panel.last(line)}".rstrip(),
                    marker="o" if len(y) < 2 else None,
                )  # fmt: skip
            axis.set_title(panel.title)
            axis.set_xlabel("epoch")
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
            axis.grid(axis="y")
            if not shared:
                axis.legend(fontsize=9)
        if shared:
            lines, labels = axes[0].get_legend_handles_labels()
            figure.legend(
                lines, labels, loc="outside lower left", ncols=min(columns, 2), fontsize=9
            )
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
            axis.annotate(short(value), (max(value, high), row), xytext=(5, 0), va="center",
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


def short(value: float) -> str:
    """Three digits, and never fewer than stand before the point."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


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
