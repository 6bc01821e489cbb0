"""Runs compared: settings, progress and results; of finished, stopped and damaged ones."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from rich.table import Table

from seewide.console import make_table
from seewide.errors import InputError
from seewide.tasks import Score, get_task
from seewide.train.checkpoint import CONFIG, METRICS, read_config
from seewide.train.lines import read_json_lines
from seewide.train.log import duration, speed

Row = dict[str, float]


@dataclass(frozen=True)
class RunRecord:
    """What a run folder says.

    Attributes:
        name: of the folder.
        folder: its path.
        model, data, task, recipe: as in `config.json`; "?" where it is damaged.
        seed: of the run; None where it is not known.
        epochs: of the recipe, 0 where they are not known.
        sparse: whether the recipe has sparsity.
        history: the rows of `metrics.jsonl` that can be read.
        problem: a sentence on what is missing or damaged, or empty.
    """

    name: str
    folder: Path
    model: str = "?"
    data: str = "?"
    task: str = "?"
    recipe: str = "?"
    seed: int | None = None
    epochs: int = 0
    sparse: bool = False
    history: tuple[Row, ...] = ()
    problem: str = ""

    @property
    def score(self) -> Score:
        """That of the run's task."""
        return get_task(self.task).score if self.task != "?" else Score("loss", "min")

    @property
    def best(self) -> Row:
        """The row of the best epoch, as training selects it; empty before the first one."""
        return max(self.history, key=self.score.rank, default={})

    @property
    def seconds(self) -> float:
        """Of all epochs that are saved."""
        return sum(row.get("seconds", 0.0) for row in self.history)


def read_run(folder: Path) -> RunRecord:
    """The record of a run folder; what is damaged becomes the record's `problem`."""
    facts, problems = {"name": folder.resolve().name, "folder": folder}, []
    try:
        config = read_config(folder)
        recipe, runtime = config["recipe"], config["runtime"]
        get_task(recipe["task"])
        facts |= {
            "model": str(config["model"]),
            "data": Path(config["data"]).name,
            "task": str(recipe["task"]),
            "recipe": str(config["recipe_name"]),
            "seed": int(runtime["seed"]),
            "epochs": int(recipe["epochs"]),
            "sparse": recipe.get("sparsity", 0) > 0,
        }
    except InputError as error:
        problems.append(f"{CONFIG}: {error}")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        problems.append(f"{CONFIG} is damaged: {type(error).__name__}, {error}")
    rows, damaged = read_json_lines(folder / METRICS)
    complete = [row for row in rows if {"epoch", "train_loss"} <= row.keys()]
    if damaged is not None or len(complete) < len(rows):
        line = damaged or 1 + next(i for i, row in enumerate(rows) if row not in complete)
        rows = rows[: line - 1]
        problems.append(f"line {line} of {METRICS} is damaged, {len(rows)} before it count")
    elif not rows:
        problems.append("its first epoch is not finished")
    return RunRecord(**facts, history=tuple(rows), problem="; ".join(problems))


def find_runs(folders: Iterable[Path]) -> list[RunRecord]:
    """The runs among `folders` and directly in them, by task, the best first.

    Raises:
        InputError: a folder that does not exist, or that neither is a run nor holds one.
    """
    found: dict[Path, RunRecord] = {}
    for folder in folders:
        if not folder.is_dir():
            raise InputError(f"there is no folder {folder}; `seewide train` creates runs/")
        inside = [folder] if _is_run(folder) else sorted(filter(_is_run, folder.iterdir()))
        if not inside:
            raise InputError(
                f"{folder} is not a run and holds none: no {CONFIG} in it or one level below"
            )
        for run in inside:
            found.setdefault(run.resolve(), read_run(run))
    names = Counter(run.name for run in found.values())
    for path, run in found.items():
        if names[run.name] > 1:
            found[path] = replace(run, name=str(Path(path.parent.name, run.name)))
    ranked = sorted(found.values(), key=lambda run: run.score.rank(run.best), reverse=True)
    return sorted(ranked, key=lambda run: (run.task == "?", run.task))


def tabulate(runs: Sequence[RunRecord]) -> Table:
    """A row per run."""
    words = "run", "model", "data", "recipe"
    numbers = "epochs", "best", "at", "val loss", "samples/s", "time"
    table = make_table("", *words, *numbers, left=words)
    for run in runs:
        best, cells = run.best, ("-",) * 5
        if best:
            value, loss = best.get(f"val_{run.score.key}"), best.get("val_loss")
            pace = run.history[-1].get("samples_per_second")
            cells = (
                "-" if value is None else run.score.show(value),
                str(best["epoch"]),
                "-" if loss is None else f"{loss:.3f}",
                "-" if pace is None else speed(pace),
                duration(run.seconds),
            )
        epochs = f"{len(run.history)}/{run.epochs or '?'}"
        table.add_row(run.name, run.model, run.data, run.recipe, epochs, *cells)
    return table


def draw_runs(runs: Sequence[RunRecord], path: Path) -> Path:
    """The curves of all runs in one figure: score, losses and learning rate over the epochs.

    Raises:
        InputError: no run has finished an epoch.
    """
    from seewide.analysis.figures import Panel, draw_lines, points

    drawn = [run for run in runs if run.history]
    if not drawn:
        raise InputError("no curves to draw: no run has finished an epoch")
    panels = [
        Panel(title, {run.name: points(run.history, key) for run in drawn})
        for title, key in (
            ("loss, training", "train_loss"),
            ("loss, validation", "val_loss"),
            ("learning rate", "lr"),
        )
    ]
    for task in sorted({run.task for run in drawn}):
        members = [run for run in drawn if run.task == task]
        score = members[0].score
        title = f"{score.label or score.key}{f' ({score.unit})' if score.unit else ''}, validation"
        lines = {run.name: points(run.history, f"val_{score.key}") for run in members}
        panels.append(Panel(title, lines))
    return draw_lines(panels, path, shared=True)


def _is_run(folder: Path) -> bool:
    return folder.is_dir() and (folder / CONFIG).is_file()
