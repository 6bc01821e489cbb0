"""What a network is trained for, one file per task; see `seewide.tasks._task`."""

from __future__ import annotations

import importlib
import pkgutil

from seewide.errors import InputError, unknown
from seewide.tasks._task import (
    Batch,
    DataSplits,
    Facts,
    FilePrediction,
    Metric,
    ResultTable,
    Sample,
    Score,
    Task,
    TrainingContext,
    find_backbone,
)

__all__ = [
    "Batch", "DataSplits", "Facts", "FilePrediction", "Metric", "ResultTable", "Sample", "Score",
    "Task", "TrainingContext", "find_backbone", "get_task", "guess_task", "task_names",
]  # fmt: skip


def task_names() -> list[str]:
    """The names of all tasks, which are those of the files in this package."""
    return sorted(m.name for m in pkgutil.iter_modules(__path__) if not m.name.startswith("_"))


def get_task(name: str) -> type[Task]:
    """The class of a task.

    Raises:
        InputError: no such task; the sentence names the nearest.
    """
    if name not in task_names():
        raise unknown("task", name, task_names())
    module = importlib.import_module(f"{__name__}.{name}")
    return next(
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Task) and vars(value).get("name") == name
    )


def guess_task(data: str) -> tuple[str, str]:
    """The task that `data` is for, and what was found there in words.

    Raises:
        InputError: no task recognizes it, or several do; the sentence says which.
    """
    found = {name: words for name in task_names() if (words := get_task(name).recognize(data))}
    if not found:
        raise InputError(
            f"{data} is not recognized as data of any task ({', '.join(task_names())}); "
            "--task says which one it is for"
        )
    less = {other for name in found for other in get_task(name).preferred_to}
    found = {name: words for name, words in found.items() if name not in less}
    if len(found) > 1:
        raise InputError(
            f"{data} could be for {' or '.join(found)}; --task says which one it is for"
        )
    return next(iter(found.items()))
