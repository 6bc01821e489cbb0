"""How speed depends on threads, batch and input size: `python -m benchmarks sweep [NETWORK...]`."""

from __future__ import annotations

import os
from collections.abc import Callable

import timm
import torch
from rich.console import Console

from benchmarks import models
from benchmarks.conditions import Settings, describe, write_csv
from benchmarks.figures import Lines, draw_sweep
from seewide.console import make_table, track
from seewide.errors import unknown
from seewide.models import list_models

NETWORKS = ("unireplknet_t", "pelk_t", "lsnet_t", "uniconvnet_a", "convnext_tiny")
SIDES = (224, 320, 448, 640, 1024)
BATCHES = (1, 2, 4, 8, 16)
COLUMNS = ("network", "varied", "value", "batch", "side", "threads", "images/s", "median ms")


def _speed(name: str, batch: int, side: int, settings: Settings) -> float:
    """Seconds per image of the merged network, timm's in its best layout."""
    run = models.measure(
        name, batch, settings, lambda label: label in (models.MERGED, models.TIMM, models.TIMM_CL),
        yardstick=name, side=side,
    )  # fmt: skip
    return min(map(run.rounds.median, run.rounds.rounds)) / batch


def _count(settings: Settings) -> int | None:
    """How many values of a quantity are measured."""
    return 2 if settings.quick else None


def sides(name: str, settings: Settings) -> list[tuple[float, float]]:
    """Input size at batch 1."""
    return [(side, _speed(name, 1, side, settings)) for side in SIDES[: _count(settings)]]


def batches(name: str, settings: Settings) -> list[tuple[float, float]]:
    """Batch at 224 pixels."""
    return [(batch, _speed(name, batch, 224, settings)) for batch in BATCHES[: _count(settings)]]


def threads(name: str, settings: Settings) -> list[tuple[float, float]]:
    """Threads, 1, 2, 4, ... up to the CPU's cores, at batch 8 and 224 pixels."""
    before, found = torch.get_num_threads(), []
    count = 1
    while count <= len(os.sched_getaffinity(0)):
        torch.set_num_threads(count)
        found.append((count, _speed(name, 8, 224, settings)))
        count *= 2
    torch.set_num_threads(before)
    return found


VARIED: dict[str, tuple[Callable, str]] = {
    "side": (sides, "side of the input in pixels, batch 1"),
    "batch": (batches, "images at once, 224 px"),
    "threads": (threads, "threads, batch 8, 224 px"),
}
FIXED = {
    "side": lambda value: (1, value, torch.get_num_threads()),
    "batch": lambda value: (value, 224, torch.get_num_threads()),
    "threads": lambda value: (8, 224, value),
}


def run(names: list[str], settings: Settings, console: Console) -> None:
    """Measure, print, write the file and draw a picture per quantity."""
    for name in names:
        if not timm.is_model(name):
            raise unknown("model", name, [*list_models(), *NETWORKS])
    work = [(varied, name) for varied in VARIED for name in names or NETWORKS[: _count(settings)]]
    rows, lines = [], {varied: Lines() for varied in VARIED}
    table = make_table("", *COLUMNS, left=("network", "varied"))
    for varied, name in track(work, "measuring", console):
        for value, seconds in VARIED[varied][0](name, settings):
            batch, side, count = FIXED[varied](value)
            row = [name, varied, value, batch, side, count, f"{1 / seconds:.2f}",
                   f"{1e3 * batch * seconds:.2f}"]  # fmt: skip
            rows.append(row)
            table.add_row(*map(str, row))
            lines[varied].setdefault(name, []).append((value, 1 / seconds))
    console.print(table)
    describe(settings, console)
    if settings.quick:
        return
    console.print(f"written: {write_csv('sweep', COLUMNS, rows, settings)}", soft_wrap=True)
    for varied, (_, unit) in VARIED.items():
        if len(next(iter(lines[varied].values()))) > 1:
            picture = draw_sweep("", unit, lines[varied], f"sweep-{varied}-{settings.device}")
            console.print(f"written: {picture}", soft_wrap=True)
