"""Figures: training curves, confusion matrices, bars and image grids in one style.

Each function draws on its own `Figure` (never through pyplot, so without global state or windows)
and writes the file atomically. The suffix of `path` selects the format (`.png`, `.svg`, `.pdf`);
without a suffix it is PNG. Names are shown as they are: `$` starts no formula and control
characters are escaped.
"""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from seewide.errors import InputError, printable, write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, FAINT = "#1f2933", "#9aa5b1"
# Distinguishable in grayscale and with all common color vision deficiencies (Okabe and Ito 2008).
PALETTE = ("#1f6fb2", "#e07b39", "#2a9d76", "#b5559b", "#8c6d31")
DASHES = ("-", "--", ":", "-.")  # for more than five lines
MORE = ("#c9a66b", "#7fb7d9", "#5c6f7f", "#c7ced6")  # for more than five parts of a bar
STYLE = {
    "font.size": 10,
    "font.family": "DejaVu Sans",  # comes with matplotlib, so figures are equal on every machine
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
    """Loss (left) and accuracy in percent (right) over epochs.

    Args:
        metrics: one mapping per epoch. `epoch` is the x value (default: the position, from 1).
            Each key that ends in `loss` is a line of the left panel, each key that contains `top`
            (such as `val_top1`, in percent) a line of the right one. Keys may be missing in some
            epochs.
        path: of the figure.

    Raises:
        InputError: no such key in any epoch.
    """
    losses = _keys(metrics, lambda key: key.endswith("loss"))
    accuracies = _keys(metrics, lambda key: "top" in key)
    panels = [Panel.of("loss", metrics, losses), Panel.of("accuracy (%)", metrics, accuracies, 1)]
    panels = [panel for panel in panels if panel.lines]
    if not panels:
        raise InputError("no curves to draw: the metrics have no key with `loss` or `top` in it")
    return draw_lines(panels, path)


@dataclass(frozen=True)
class Panel:
    """One plot of `draw_lines`.

    Attributes:
        title: of the plot.
        lines: label -> (epoch, value) pairs.
        digits: decimals of the last value in the legend; None: three significant digits.
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
        """One line per key of the metrics."""
        lines = {key.replace("_", " "): points(metrics, key) for key in keys}
        return cls(title, lines, digits)

    def last(self, line: Sequence[tuple[float, float]]) -> str:
        """The last value of a line, formatted."""
        if not line:
            return ""
        return f"{line[-1][1]:.3g}" if self.digits is None else f"{line[-1][1]:.{self.digits}f}"


def points(metrics: Sequence[Mapping[str, float]], key: str) -> list[tuple[float, float]]:
    """(epoch, value) of the epochs with a finite value of `key`; see `draw_curves`."""
    return [
        (row.get("epoch", position), row[key])
        for position, row in enumerate(metrics, start=1)
        if row.get(key) is not None and math.isfinite(row[key])
    ]


def draw_lines(
    panels: Sequence[Panel], path: str | os.PathLike, columns: int = 2, shared: bool = False
) -> Path:
    """Plots of values over epochs, side by side.

    Args:
        panels: at least one.
        path: of the figure.
        columns: maximum number of panels in a row.
        shared: draw one legend for all panels, which then must have the same labels; by default
            each panel has its own legend, with the last values.
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
                # The last value is in the legend since labels beside the lines could overlap.
                axis.plot(
                    x, y, color=PALETTE[index % len(PALETTE)],
                    linestyle=DASHES[index // len(PALETTE) % len(DASHES)],
                    label=plain(label if shared else f"{label}  {panel.last(line)}".rstrip()),
                    marker="o" if len(y) < 2 else None,
                )  # fmt: skip
            axis.set_title(plain(panel.title))
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


def draw_confusion(
    matrix: np.ndarray,
    class_names: Sequence[str],
    path: str | os.PathLike,
    unit: str = "images",
) -> Path:
    """A confusion matrix: rows are the true classes, columns the predicted ones.

    The color is the fraction of the row. Counts, or percentages of the row where there are more
    than 99,999, are printed up to 20 classes and names up to 60, since more would not be readable.

    Args:
        matrix: (C, C) counts, `matrix[true, predicted]`; a list, array or CPU tensor.
        class_names: C names.
        path: of the figure.
        unit: what is counted.

    Raises:
        InputError: a matrix of another shape.
    """
    counts = np.asarray(matrix)
    classes = len(class_names)
    if counts.shape != (classes, classes):
        raise InputError(
            f"a confusion matrix of {classes} classes is ({classes}, {classes}), got {counts.shape}"
        )
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    names = [plain(name) for name in class_names]
    size = min(max(3.6, 0.42 * classes + 1.6), 11.0)
    with style():
        figure, (axis,) = canvas(1, 1, width=size + 0.5, height=size)
        image = axis.imshow(shares, cmap=_blues(), norm=_emphasize_small())
        if classes <= 20:
            few = counts.max(initial=0) < 100_000
            for (row, column), count in np.ndenumerate(counts):
                share = shares[row, column]
                if count if few else share >= 0.001:
                    color = "white" if share > 0.5 else INK
                    text = f"{count:g}" if few else f"{100 * share:.3g}"
                    axis.text(column, row, text, ha="center", va="center",
                              fontsize=8, color=color)  # fmt: skip
        if classes <= 60:
            fontsize = 9 if classes <= 20 else 6
            upright = max(map(len, names)) * classes > 40
            axis.set_xticks(range(classes), names, fontsize=fontsize, rotation=90 * upright)
            axis.set_yticks(range(classes), names, fontsize=fontsize)
        accuracy = np.trace(counts) / max(counts.sum(), 1)
        axis.set_title(f"{int(counts.sum()):,} {unit}, accuracy {accuracy:.1%}")
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
    """Horizontal bars from zero, each with its value and range.

    Args:
        bars: label -> (value, low, high); a thin line spans low to high.
        unit: x label, such as "milliseconds per batch of 8 (less is better)".
        path: of the figure.

    Raises:
        InputError: no bars.
    """
    if not bars:
        raise InputError("no bars to draw")
    values, lows, highs = np.array(list(bars.values()), dtype=float).T
    rows = np.arange(len(bars))
    with style():
        figure, (axis,) = canvas(1, 1, width=7.2, height=0.9 + 0.5 * len(bars))
        axis.barh(rows, values, height=0.62, color=colors(len(bars)))
        axis.hlines(rows, lows, highs, color=INK, linewidth=1)
        for row, value, high in zip(rows, values, highs, strict=True):
            axis.annotate(short(value), (max(value, high), row), xytext=(5, 0), va="center",
                          textcoords="offset points")  # fmt: skip
        axis.set_yticks(rows, [plain(label) for label in bars])
        axis.invert_yaxis()
        axis.set_xlim(0, highs.max() * 1.12)
        axis.set_xlabel(plain(unit))
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
    """A grid of images, each with a caption above it.

    Args:
        images: (H, W) grayscale or (H, W, 3) RGB, 0..1 or uint8.
        captions: one per image.
        path: of the figure.
        columns: images per row.
        marked: True draws the caption in orange, for example of misclassified images.

    Raises:
        InputError: no images, or another number of captions.
    """
    if not len(images) or len(images) != len(captions):
        raise InputError(f"one caption per image is needed, got {len(captions)} and {len(images)}")
    rows = math.ceil(len(images) / columns)
    with style():
        figure, axes = canvas(rows, columns, width=1.05 * columns, height=1.25 * rows)
        for axis in axes:
            axis.set_axis_off()
        marked = itertools.chain(marked, itertools.repeat(False))
        for axis, image, caption, mark in zip(axes, images, captions, marked):  # noqa: B905 - endless
            axis.imshow(image, cmap="gray_r" if np.ndim(image) == 2 else None)
            axis.set_title(plain(caption), fontsize=9, loc="center", pad=3,
                           color=PALETTE[1] if mark else INK)  # fmt: skip
        return save(figure, path)


def image_figure(size: tuple[int, int], width: float = 8.0) -> tuple[Figure, Axes]:
    """A figure of `width` inches that an image of `size` (width, height) fills, and its axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, width * size[1] / size[0]))
    return figure, figure.add_axes((0, 0, 1, 1))


def draw_page(
    cells: Sequence[tuple[str, Callable[[Axes], object]]], path: str | os.PathLike, columns: int = 4
) -> Path:
    """A grid of images with titles.

    Args:
        cells: title, and a function that draws into axes.
        path: of the figure.
        columns: images per row.
    """
    columns = min(columns, len(cells))
    rows = math.ceil(len(cells) / columns)
    with style():
        figure, axes = canvas(rows, columns, width=3.2 * columns, height=2.7 * rows)
        for axis in axes:
            axis.set_axis_off()
        for axis, (title, plot) in zip(axes, cells, strict=False):
            plot(axis)
            axis.set_title(plain(title), fontsize=8, pad=3)
        return save(figure, path)


def style():
    """A context in which figures are made and saved in this style."""
    import matplotlib

    return matplotlib.rc_context(STYLE)


def canvas(rows: int, columns: int, width: float, height: float) -> tuple[Figure, list[Axes]]:
    """A figure of `width` x `height` inches and its rows * columns axes in row-major order."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).flat)


def figure_path(path: str | os.PathLike) -> Path:
    """The path that `save` writes to: `.png` is appended if there is no suffix.

    Call it before a long measurement, so that a bad path is refused first.

    Raises:
        InputError: a suffix that matplotlib cannot write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    path = Path(path)
    formats = FigureCanvasAgg.get_supported_filetypes()
    if not path.suffix:
        return path.with_name(f"{path.name}.png")
    if path.suffix[1:].lower() not in formats:
        known = ", ".join(f".{name}" for name in sorted(formats))
        raise InputError(f"a figure ends in {known}, got {path}")
    return path


def save(figure: Figure, path: str | os.PathLike) -> Path:
    """Write a figure atomically in the format of the suffix; returns the path, see `figure_path`.

    PNG files get a palette of 256 colors, a third of the size.

    Raises:
        InputError: an unknown suffix, or the file cannot be written.
    """
    from PIL import Image

    path = figure_path(path)

    def write(scratch: Path) -> None:
        figure.savefig(scratch, facecolor="white", bbox_inches="tight")
        if path.suffix.lower() == ".png":
            with Image.open(scratch) as image:
                # The method that keeps the colors of thin lines beside large heat maps.
                reduced = image.convert("RGB").quantize(256, Image.Quantize.MAXCOVERAGE, dither=0)
            reduced.save(scratch, optimize=True)

    return write_atomically(path, write)


def plain(text: object) -> str:
    """Text for matplotlib that is drawn literally.

    Dollar signs would start a formula, and labels with a leading underscore would be left out of
    legends. Control characters are escaped.
    """
    text = printable(text).replace("$", r"\$")
    return f" {text}" if text.startswith("_") else text


def plain_keys(items: Mapping) -> dict:
    """The mapping with `plain` keys, in order; keys that become equal stay apart by spaces."""
    result: dict = {}
    for key, value in items.items():
        label = plain(key)
        while label in result:
            label += " "
        result[label] = value
    return result


def _keys(metrics: Iterable[Mapping], wanted) -> list[str]:
    """Keys of all rows for which `wanted(key)` holds, in order of appearance."""
    return list(dict.fromkeys(key for row in metrics for key in row if wanted(key)))


def colors(count: int) -> list[str]:
    """`count` colors of the palette, repeated if there are more than it has."""
    return [PALETTE[index % len(PALETTE)] for index in range(count)]


def short(value: float) -> str:
    """Three significant digits, but never a power of ten for values of 1000 and above."""
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _percent(value: float, _position=None) -> str:
    return f"{value:.0%}"


def _blues():
    from matplotlib.colors import LinearSegmentedColormap

    return LinearSegmentedColormap.from_list(
        "seewide", ["#ffffff", "#a9cbe6", PALETTE[0], "#0b2f52"]
    )


def _emphasize_small():
    """0..1 on a power scale, so that rare confusions are visible."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.6, vmin=0, vmax=1)
