"""A split is pictures that are read when they are needed, and their labels; a source has two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from seewide.errors import InputError
from seewide.train.data.picture import Picture

SPLIT_SEED = 0
HELD_OUT = 0.2
SPLIT_IN_WORDS = f"{HELD_OUT:.0%} of every class held out, seed {SPLIT_SEED}"


@dataclass(frozen=True)
class Split:
    """Pictures, as files or in memory, and the index of the class of each."""

    pictures: Sequence[Picture]
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, indices: Sequence[int]) -> Split:
        return Split([self.pictures[i] for i in indices], [self.labels[i] for i in indices])

    def limited(self, count: int) -> Split:
        """At most `count` pictures, evenly from first to last, so from all classes; 0: all."""
        if not count or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(int))


@dataclass(frozen=True)
class Source:
    """What `--data` names. `name` is "digits" or the absolute folder."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    split: str  # in words: where the held-out pictures come from


def hold_out(split: Split, class_names: Sequence[str]) -> tuple[Split, Split]:
    """The same share of every class, at least one picture."""
    labels_N = np.asarray(split.labels)
    chance = np.random.default_rng(SPLIT_SEED)
    train: list[int] = []
    val: list[int] = []
    for label, name in enumerate(class_names):
        members = chance.permutation(np.flatnonzero(labels_N == label)).tolist()
        if len(members) < 2:
            raise InputError(f"class {name} has one picture; holding some out needs two or more")
        count = max(1, round(HELD_OUT * len(members)))
        val += members[:count]
        train += members[count:]
    return split.take(sorted(train)), split.take(sorted(val))
