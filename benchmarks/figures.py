"""Pictures of result files: time against kernel size, and what a sweep found."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

import numpy as np

from benchmarks.conditions import FIGURES, read_csv
from seewide.analysis import figures

Lines = dict[str, list[tuple[float, float]]]


def draw_kernels(path: Path) -> Path | None:
    """Milliseconds against K on logarithmic axes: a panel per shape and pass, a line per form.

    The dashed line is the arithmetic: taps that meet the map, at our best rate.
    None if the file has no grid of kernel sizes.
    """
    panels: dict[tuple[str, str], Lines] = defaultdict(lambda: defaultdict(list))
    needed: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for row in read_csv(path):
        if row["where"] == "grid" and "x" in row["kernel"] and "cells" not in row["kernel"]:
            K = int(row["kernel"].partition("x")[0])
            panel = panels[row["shape"], row["pass"]]
            panel[row["form"]].append((K, float(row["median ms"])))
            needed[row["shape"], row["pass"]][K] = float(row["GMACs"])
    panels = {key: lines for key, lines in panels.items() if len(next(iter(lines.values()))) > 2}
    if not panels:
        return None
    shapes = list(dict.fromkeys(shape for shape, _ in panels))
    passes = list(dict.fromkeys(passes for _, passes in panels))
    with figures.style():
        figure, axes = figures.canvas(
            len(passes), len(shapes), 3.4 * len(shapes), 3.0 * len(passes)
        )
        grid = iter(axes)
        for what in passes:
            for shape in shapes:
                _panel(
                    next(grid),
                    f"{shape.replace('x', ' x ')}, {what}",
                    panels[shape, what],
                    needed[shape, what],
                )
        axes[0].legend(fontsize=7)
        return figures.save(figure, FIGURES / f"{path.stem.partition('-torch')[0]}.png")


def _panel(axis, title: str, lines: Lines, needed: dict[int, float]) -> None:
    for colour, (form, points) in zip(figures.colors(len(lines)), lines.items(), strict=True):
        K, ms = np.array(sorted(points)).T
        axis.plot(K, ms, "o-", color=colour, markersize=3, label=form)
    K, ms = arithmetic(lines, needed)
    axis.plot(K, ms, "--", color="grey", linewidth=1, label="the arithmetic at our best rate")
    axis.set(xscale="log", yscale="log", xlabel="kernel size K", ylabel="ms")
    axis.set_title(title, fontsize=8)
    ticks = [3, 5, 7, 13, 31, 51, 101]
    axis.set_xticks(ticks, [str(tick) for tick in ticks], minor=False)
    axis.set_xticks([], minor=True)


def arithmetic(lines: Lines, needed: dict[int, float]) -> tuple[np.ndarray, np.ndarray]:
    """K and the milliseconds that its multiply-adds take at the best rate of any form of ours."""
    ours = [point for form, points in lines.items() if "seewide" in form for point in points]
    best = min(ms / needed[K] for K, ms in ours)
    K = np.array(sorted(needed))
    return K, best * np.array([needed[size] for size in K])


def draw_sweep(title: str, unit: str, lines: Lines, name: str) -> Path:
    """Images per second against a quantity, a line per network."""
    with figures.style():
        figure, (axis,) = figures.canvas(1, 1, 5.6, 3.0)
        for colour, (label, points) in zip(figures.colors(len(lines)), lines.items(), strict=True):
            quantity, speed = np.array(points).T
            axis.plot(quantity, speed, "o-", color=colour, markersize=3, label=label)
        axis.set(xscale="log", yscale="log", xlabel=unit, ylabel="images per second")
        ticks = sorted({x for points in lines.values() for x, _ in points})
        axis.set_xticks(ticks, [f"{tick:g}" for tick in ticks], minor=False)
        axis.set_xticks([], minor=True)
        axis.yaxis.set_major_formatter("{x:g}")
        axis.set_title(title)
        figure.legend(fontsize=7, loc="outside right upper")
        return figures.save(figure, FIGURES / f"{name}.png")
