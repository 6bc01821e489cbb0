"""A split is pictures that are read when they are needed, and their labels; a source has two."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from seewide.errors import InputError
from seewide.train.data.picture import Picture

SPLIT_SEED = 0
HELD_OUT = 0.2
SPLIT_IN_WORDS = f"{HELD_OUT:.0%} of every class held out, seed {SPLIT_SEED}"


class Names(Sequence[str]):
    """Many strings in two arrays: an eighth of the memory, and processes share it.

    A list of 14 million strings is counted in, string by string, by every process that reads them,
    and then is no longer shared.
    """

    def __init__(self, blob: np.ndarray, ends: np.ndarray) -> None:
        self.blob, self.ends = blob, ends

    @classmethod
    def of(cls, names: Iterable[str]) -> Names:
        parts = [name.encode("utf-8", "surrogateescape") for name in names]
        ends = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.frombuffer(b"".join(parts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, index: int) -> str:
        end = self.ends[index]
        start = self.ends[index - 1] if index % len(self) else 0
        return self.blob[start:end].tobytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Chosen(Sequence[Picture]):
    """Some of a sequence, which stays where it is."""

    whole: Sequence[Picture]
    indices: np.ndarray

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Picture:
        return self.whole[int(self.indices[index])]


@dataclass(frozen=True)
class Split:
    """Pictures, on disk or in memory, and the index of the class of each.

    `shards`: where pictures lie many to a file, the number of that file, for each. Reading is
    fastest in this order.
    """

    pictures: Sequence[Picture]
    labels: Sequence[int]
    shards: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.pictures)

    def take(self, indices: Sequence[int]) -> Split:
        chosen = np.asarray(indices)
        whole, within = self.pictures, chosen
        if isinstance(whole, Chosen):
            whole, within = whole.whole, whole.indices[chosen]
        return Split(
            Chosen(whole, within),
            np.asarray(self.labels)[chosen],
            None if self.shards is None else self.shards[chosen],
        )

    def limited(self, count: int) -> Split:
        """At most `count` pictures, evenly from first to last, so from all classes; 0: all."""
        if not count or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(int))


@dataclass(frozen=True)
class Source:
    """What `--data` names, in the words of `name`, which opens it again from anywhere.

    `split` says where the held-out pictures come from.
    """

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split
    split: str

    @property
    def short(self) -> str:
        """A name for files: the last part of `name` that is no pattern."""
        parts = [part for part in Path(self.name).parts if not re.search(r"[*?{\[]", part)]
        return re.sub(r"[^\w.-]+", "-", parts[-1] if parts else self.name).strip("-.") or "data"


@dataclass(frozen=True)
class Unsplit:
    """A source as it is found: `val` is None where it has no held-out pictures of its own."""

    name: str
    class_names: tuple[str, ...]
    train: Split
    val: Split | None
    split: str = ""

    def held_out(self) -> Source:
        """With held-out pictures: its own, otherwise some of every class."""
        found: dict[str, Any] = vars(self)
        if self.val is not None:
            return Source(**found)
        train, val = hold_out(self.train, self.class_names)
        return Source(**{**found, "train": train, "val": val, "split": SPLIT_IN_WORDS})

    def to_judge(self) -> tuple[Split, str]:
        """Its held-out pictures if it has some, otherwise all, and which those are."""
        if self.val is not None:
            return self.val, self.split
        return self.train, f"all of {self.name}"


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


def split_by_name(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files to train on and held-out ones, by their names' words: train, and val or validation.

    Without such words all are to train on; beside them, other files, such as tests, are left.
    """
    files = list(files)
    words = {file: set(re.findall(r"[a-z]+", file.stem.lower())) for file in files}
    train = [file for file in files if "train" in words[file]]
    val = [file for file in files if words[file] & {"val", "valid", "validation"}]
    if val and not train:
        raise InputError(f"{val[0].parent} has {val[0].name} but no train files")
    return (train, val) if train else (files, [])


def labelled(
    train: np.ndarray, val: np.ndarray | None, where: str, given: Sequence[str] = ()
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Class names and the labels as their indices, from labels that are numbers or names.

    Args:
        given: the class names if they are known.

    Raises:
        InputError: fewer than two classes, or labels that the training classes do not have.
    """
    numbers = np.issubdtype(train.dtype, np.integer)
    names = np.asarray(given)
    if not len(names):
        names = np.arange(train.max() + 1).astype(str) if numbers else np.unique(train)
    if len(names) < 2:
        raise InputError(f"{where} holds one class, {names[0]}; telling apart needs two or more")
    found = []
    for labels in (train, val):
        if labels is None:
            found.append(None)
            continue
        if np.issubdtype(labels.dtype, np.integer) and numbers:
            strange = labels[(labels < 0) | (labels >= len(names))]
            indices = labels
        else:
            place = {name: index for index, name in enumerate(names.tolist())}
            strange = labels[~np.isin(labels, names)]
            indices = np.array([place.get(name, -1) for name in labels.tolist()])
        if len(strange):
            raise InputError(
                f"{where} has a class {strange[0]} that the training classes do not have: "
                f"{shortened(names.tolist())}"
            )
        found.append(indices)
    return tuple(names.tolist()), *found


def shortened(names: Sequence[str], limit: int = 10) -> str:
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest
