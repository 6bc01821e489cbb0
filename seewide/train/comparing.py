"""Runs side by side: what each was, how far it is, how good it is; finished, stopped or damaged."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from seewide.errors import InputError
from seewide.train.checkpoint import CONFIG, METRICS
from seewide.train.console import make_table
from seewide.train.watching import duration, pace, read_lines

Row = dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says.

    Attributes:
        name: of the folder.
        folder: where it lies.
        model, data, recipe: in the words of `config.json`; "?" where it is damaged.
        seed: of the run; None where it is not known.
        epochs: that the recipe asks for, 0 where they are not known.
        sparse: whether the recipe leaves weights out.
        history: the rows of `metrics.jsonl` that can be read.
        trouble: a sentence on what is missing or damaged, or empty.
    """

    name: str
    folder: Path
    model: str = "?"
    data: str = "?"
    recipe: str = "?"
    seed: int | None = None
    epochs: int = 0
    sparse: bool = False
    history: tuple[Row, ...] = ()
    trouble: str = ""

    @property
    def best(self) -> Row:
        """The row of the best epoch, as training chooses it; empty before the first one."""
        return max(self.history, key=lambda row: (row["val_top1"], -row["val_loss"]), default={})

    @property
    def seconds(self) -> float:
        """Of all epochs that are kept."""
        return sum(row.get("seconds", 0.0) for row in self.history)


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder. Whatever is damaged becomes the record's `trouble`."""
    facts, troubles = {"name": folder.resolve().name, "folder": folder}, []
    try:
        config = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        facts |= {
            "model": str(config["model"]),
            "data": Path(config["data"]).name,
            "recipe": str(config["recipe_name"]),
            "seed": int(config["seed"]),
            "epochs": int(config["recipe"]["epochs"]),
            "sparse": config["recipe"].get("sparsity", 0) > 0,
        }
    except (OSError, ValueError, KeyError, TypeError) as error:
        troubles.append(f"{CONFIG} is damaged: {type(error).__name__}, {error}")
    rows, damaged = read_lines(folder / METRICS)
    complete = [row for row in rows if {"epoch", "val_top1", "val_loss"} <= row.keys()]
    if damaged is not None or len(complete) < len(rows):
        line = damaged or 1 + next(i for i, row in enumerate(rows) if row not in complete)
        rows = rows[: line - 1]
        troubles.append(f"line {line} of {METRICS} is damaged, {len(rows)} before it count")
    elif not rows:
        troubles.append("its first epoch is not finished")
    return RunRecord(**facts, history=tuple(rows), trouble="; ".join(troubles))


def find_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """The runs among `folders` and directly in them, the best first.

    Raises:
        InputError: a folder that does not exist, or that neither is a run nor holds one.
    """
    found: dict[Path, RunRecord] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}; `seewide train` makes runs/")
        inside = [folder] if _is_run(folder) else sorted(filter(_is_run, folder.iterdir()))
        if not inside:
            raise InputError(f"{folder} is no run and holds none: no {CONFIG} in it or one below")
        for run in inside:
            found.setdefault(run.resolve(), read_run(run))
    names = Counter(run.name for run in found.values())
    for path, run in found.items():
        if names[run.name] > 1:
            found[path] = replace(run, name=str(Path(path.parent.name, run.name)))
    return sorted(found.values(), key=lambda run: -run.best.get("val_top1", -1.0))


def tabulate(runs: Sequence[RunRecord]) -> Table:
    """A row for each run."""
    words = "run", "model", "data", "recipe"
    numbers = "epochs", "top-1", "at", "val loss", "images/s", "time"
    table = make_table("", *words, *numbers, left=words)
    for run in runs:
        best, scores = run.best, ("-",) * 5
        if best:
            speed = run.history[-1].get("images_per_second")
            scores = (
                f"{best['val_top1']:.2f}",
                str(best["epoch"]),
                f"{best['val_loss']:.3f}",
                "-" if speed is None else pace(speed),
                duration(run.seconds),
            )
        epochs = f"{len(run.history)}/{run.epochs or '?'}"
        table.add_row(run.name, run.model, run.data, run.recipe, epochs, *scores)
    return table


def draw_runs(runs: Sequence[RunRecord], path: Path) -> Path:
    """The curves of all runs in one figure: accuracy, losses and learning rate over the epochs.

    Raises:
        InputError: no run has finished an epoch.
    """
    from seewide.analysis.pictures import Panel, draw_lines, points

    drawn = [run for run in runs if run.history]
    if not drawn:
        raise InputError("no curves to draw: no run has finished an epoch")
    wanted = {
        "top-1 (%), validation": "val_top1",
        "loss, validation": "val_loss",
        "loss, training": "train_loss",
        "learning rate": "lr",
    }
    panels = []
    for title, key in wanted.items():
        panels.append(Panel(title, {run.name: points(run.history, key) for run in drawn}))
    return draw_lines(panels, path, shared=True)


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and (folder / CONFIG).is_file()
