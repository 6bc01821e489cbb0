"""Samples: a sequence of dicts that are read when they are needed.

Shuffling, resuming, distribution among processes and the handling of broken samples are written
once, for everything that implements this interface.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from seewide.errors import InputError

Sample = dict[str, Any]


class Samples(Sequence[Sample]):
    """Samples as they were stored, such as `{"image": PIL image, "label": int}`.

    `samples[index]` reads one. It raises InputError if that fails; the sentence names the sample.

    Attributes:
        labels: (N,) class indices, for hold-outs that are drawn class by class; None if samples
            have no single class.
        shards: (N,) index of the file that each sample lies in, where a file holds many; reading is
            fastest file by file. None otherwise.
    """

    labels: np.ndarray | None = None
    shards: np.ndarray | None = None

    @abstractmethod
    def names(self) -> Iterable[str]:
        """What identifies each sample: its file name, relative to the data."""

    def sizes(self) -> np.ndarray | None:
        """(N,) sizes in bytes as stored; None if finding out is expensive."""
        return None

    def verify(self, index: int) -> None:
        """Read the sample and discard it, at less cost than `samples[index]` where possible.

        Raises:
            InputError: it cannot be read.
        """
        self[index]

    def take(self, indices: Sequence[int] | np.ndarray) -> Samples:
        """Some of the samples, in the order of `indices`."""
        return Subset(self, np.asarray(indices, dtype=np.int64))

    def limited(self, count: int) -> Samples:
        """At most `count` samples at equal distances, therefore of all classes; 0: all."""
        if not count or count >= len(self):
            return self
        return self.take(np.linspace(0, len(self) - 1, count).round().astype(int))

    def __iter__(self) -> Iterator[Sample]:
        return (self[index] for index in range(len(self)))


class Subset(Samples):
    """Some samples of `base`; a subset of a subset refers to the first base."""

    def __init__(self, base: Samples, indices: np.ndarray) -> None:
        self.labels = None if base.labels is None else np.asarray(base.labels)[indices]
        self.shards = None if base.shards is None else base.shards[indices]
        if isinstance(base, Subset):
            base, indices = base.base, base.indices[indices]
        self.base, self.indices = base, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        return self.base[int(self.indices[index])]

    def verify(self, index: int) -> None:
        self.base.verify(int(self.indices[index]))

    def names(self) -> Iterable[str]:
        names = self.base.names()
        names = names if isinstance(names, Sequence) else list(names)
        return (names[int(index)] for index in self.indices)

    def sizes(self) -> np.ndarray | None:
        sizes = self.base.sizes()
        return None if sizes is None else sizes[self.indices]


class Names(Sequence[str]):
    """Many strings in two arrays: an eighth of the memory, which forked processes share.

    Python counts references to each string of a list. A worker that reads the list writes to its
    memory and so copies it: all 14 million strings of ImageNet-21k.
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


def check_samples(samples: Samples, step: Callable[[], object] = lambda: None) -> list[str]:
    """Verify every sample; the sentence for each that cannot be read.

    Args:
        step: called after each sample.
    """
    broken = []
    for index in range(len(samples)):
        try:
            samples.verify(index)
        except InputError as error:
            broken.append(str(error))
        step()
    return broken


def fingerprint(samples: Samples) -> str:
    """A hash of the names, labels and sizes of the samples, in their order: 32 hex digits.

    Samples that were renamed, exchanged or labelled anew have another fingerprint; so have most
    that were replaced under their old name, since their size changes.
    """
    digest = hashlib.sha256(f"{len(samples)}\n".encode())
    for name in samples.names():
        digest.update(name.encode("utf-8", "surrogateescape") + b"\0")
    for values in (samples.labels, samples.sizes()):
        if values is None:
            digest.update(b"none\n")
        else:
            digest.update(np.ascontiguousarray(values, dtype="<i8").tobytes())
    return digest.hexdigest()[:32]
