"""`seewide inspect`."""

from __future__ import annotations

from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from seewide.cli._files import write_json
from seewide.cli._parser import Parser, pairs, whole
from seewide.console import bars, complain, print_facts, print_table, say
from seewide.errors import InputError

if TYPE_CHECKING:
    from seewide.data import Samples
    from seewide.tasks import DataSplits, Task

DETAILS = """
Prints what the task would train and validate on: how many samples and of which classes, their
sizes, rates or lengths, and the ones that cannot be read. Nothing is changed.

examples:
  seewide inspect flowers
  seewide inspect recordings --limit 0 --out recordings.json
"""
ROWS = 40  # classes printed; the JSON file has all
BROKEN_ROWS = 20


def arguments(parser: Parser) -> None:
    parser.add("data", "What a task reads: a folder, a table, `digits` ...", metavar="DATA")
    parser.add("--task", "The task it is for. Default: what fits the data.", metavar="TASK")
    setting = "Set an option of the task that decides how data is read; may be repeated."
    parser.add("--set", setting, metavar="KEY=VALUE", action="append")
    parser.add("--limit", "Samples read of each part (0: all).", whole(0), 500)
    parser.add("--out", "Also write everything to FILE.json.", Path, None, "FILE")


def run(arguments: Namespace) -> None:
    from seewide.options import parse
    from seewide.tasks import get_task, guess_task

    data = arguments.data
    name, words = (arguments.task, "") if arguments.task else guess_task(data)
    kind = get_task(name)
    settings = pairs(arguments.set or ())
    options = {
        key.removeprefix("task."): parse(kind.Options, key.removeprefix("task."), value)
        for key, value in settings.items()
    }
    task = kind(kind.Options(**options))
    splits = task.open(data)
    print_facts(
        data=splits.name, found=words or kind.recognize(data) or "", task=name,
        held_out=splits.held_out,
    )  # fmt: skip
    names = splits.facts.get("class_names", [])
    counts = {part: class_counts(samples, names) for part, samples in parts(splits).items()}
    found: dict[str, Any] = {"data": splits.name, "task": name, "held_out": splits.held_out}
    for part, samples in parts(splits).items():
        values, broken, read = read_samples(task, samples, arguments.limit)
        found[part] = {
            "samples": len(samples), "read": read, "classes": counts[part],
            "values": summary(values), "broken": broken,
        }  # fmt: skip
    _print(found, names, task, splits)
    if arguments.out is not None:
        say(f"written: {write_json(arguments.out, found)}")


def parts(splits: DataSplits) -> dict[str, Samples]:
    """The samples by the name of their part."""
    return {"train": splits.train, "val": splits.val}


def class_counts(samples: Samples, names: Sequence[str]) -> dict[str, int]:
    """Samples of each class; empty where samples have no single class."""
    if samples.labels is None or not names:
        return {}
    counts = Counter(np.asarray(samples.labels).tolist())
    return {name: counts[index] for index, name in enumerate(names)}


def read_samples(
    task: Task, samples: Samples, limit: int
) -> tuple[list[dict[str, float]], list[str], int]:
    """What the task measures of samples at equal distances, sentences of broken ones, and how
    many were read."""
    some = samples.limited(limit)
    values, broken = [], []
    with bars() as progress:
        advance = progress("reading samples", len(some))
        for index in range(len(some)):
            try:
                values.append(task.measure(some[index]))
            except InputError as error:
                broken.append(str(error))
            advance()
    return values, broken, len(some)


def summary(values: Sequence[Mapping[str, float]]) -> dict[str, dict[str, float]]:
    """Smallest, median and largest of each value."""
    keys = dict.fromkeys(key for row in values for key in row)
    found = {}
    for key in keys:
        column = np.array([row[key] for row in values if key in row], np.float64)
        middle = float(np.median(column))
        found[key] = {"min": float(column.min()), "median": middle, "max": float(column.max())}
    return found


def _print(found: dict[str, Any], names: Sequence[str], task: Task, splits: DataSplits) -> None:
    both = ("train", "val")
    rows = [
        (part, found[part]["samples"], found[part]["read"], len(found[part]["broken"]))
        for part in both
    ]
    say()
    print_table("", ("part", task.unit, "read", "broken"), rows)
    if any(found[part]["classes"] for part in both):
        cut = f" (the first {ROWS} of {len(names)})" if len(names) > ROWS else ""
        table = [(name, *(found[part]["classes"].get(name, 0) for part in both)) for name in names]
        say()
        print_table(f"Classes{cut}", ("class", *both), table[:ROWS])
    rows = [
        (part, key, *(f"{value[end]:.4g}" for end in ("min", "median", "max")))
        for part in both
        for key, value in found[part]["values"].items()
    ]
    if rows:
        say()
        print_table("Samples", ("part", "value", "smallest", "median", "largest"), rows)
    for table in task.overview(splits):
        say()
        print_table(table.title, table.columns, table.rows[:ROWS])
    broken = [sentence for part in both for sentence in found[part]["broken"]]
    for sentence in broken[:BROKEN_ROWS]:
        complain(sentence)
    if len(broken) > BROKEN_ROWS:
        complain(f"{len(broken) - BROKEN_ROWS} more cannot be read")
