"""Pages of samples: with their labels before training, and the worst ones after evaluation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from seewide.data import Samples
from seewide.errors import InputError
from seewide.tasks import Facts, Sample, Task

SAMPLES = "samples.png"
SHOWN = 12  # samples of a page


@dataclass(frozen=True)
class DescribedSample:
    """A sample, what it is called, and what a model says of it."""

    name: str
    sample: Sample
    description: dict[str, Any]


def draw_labeled_samples(task: Task, samples: Samples, facts: Facts, path: Path) -> Path | None:
    """The first samples with their labels; None if the task cannot draw them.

    Samples that cannot be read are left out, since training reports them.
    """
    entries = []
    for index in range(min(len(samples), SHOWN)):
        try:
            sample = samples[index]
        except InputError:
            continue
        labels = task.labels(sample, facts)
        if labels is None:
            return None
        entries.append((str(sample.get("name", index)), sample, labels))
    return task.draw_page(entries, path) if entries else None


def describe_worst(
    samples: Samples, order: Sequence[int], describe: Callable[[Sample], dict[str, Any]]
) -> tuple[DescribedSample, ...]:
    """What a model says of the first samples of `order`."""
    found = []
    for index in order[: SHOWN // 2]:
        sample = samples[index]
        name = str(sample.get("name", f"sample {index}"))
        found.append(DescribedSample(name, sample, describe(sample)))
    return tuple(found)


def draw_worst(task: Task, worst: Sequence[DescribedSample], facts: Facts, path: Path) -> Path:
    """Each sample twice, side by side: with its labels and with the prediction."""
    entries = []
    for entry in worst:
        labels = task.labels(entry.sample, facts) or {}
        entries.append((f"{entry.name}: labels", entry.sample, labels))
        entries.append((f"{entry.name}: prediction", entry.sample, entry.description))
    return task.draw_page(entries, path)
