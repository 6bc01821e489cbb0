"""Batches: samples read and transformed by worker processes, ahead of the training."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, get_worker_info

from seewide.errors import InputError
from seewide.seeding import preserve_generators, seed_cpu

from .broken import BrokenSamples
from .order import Key, Order
from .samples import Sample, Samples

PREFETCH = 4  # batches that each worker has ready, so that a slow one of large images is no delay
IN_A_ROW = 100  # broken samples; after so many it is not about single samples

Batch = dict[str, Any]
Transform = Callable[[Sample], Sample]
Collate = Callable[[list[Sample]], Batch]


class SampleReader(Dataset):
    """Reads and transforms samples; all that is random follows from (seed, *key).

    Items are the sample and the sentences of samples that could not be read or transformed (a cloud
    of too few points, a video that ends early): the next one that can takes their place.

    Args:
        skip: whether to skip them; otherwise the first one raises InputError.
    """

    def __init__(
        self, samples: Samples, transform: Transform, seed: int = 0, *, skip: bool = False
    ) -> None:
        self.samples = samples
        self.transform = transform
        self.seed = seed
        self.attempts = min(IN_A_ROW, len(samples)) if skip else 1

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: Key) -> tuple[Sample, list[str]]:
        with preserve_generators():
            return self._read(key)

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Sample, list[str]]] | _Failure:
        """A batch, as torch's loader asks for it."""
        # The generators of a worker serve nothing else.
        with contextlib.nullcontext() if get_worker_info() else preserve_generators():
            try:
                return [self._read(key) for key in keys]
            except InputError as error:
                return _Failure(str(error))

    def _read(self, key: Key) -> tuple[Sample, list[str]]:
        sentences: list[str] = []
        for offset in range(self.attempts):
            try:
                sample = self.samples[(key[1] + offset) % len(self)]
                seed_cpu(self.seed, *key)
                return self.transform(sample), sentences
            except InputError as error:
                sentences.append(str(error))
        many = f"{len(sentences)} samples in a row cannot be read; " if self.attempts > 1 else ""
        raise InputError(f"{many}{sentences[-1]}")


@dataclass(frozen=True)
class _Failure:
    """An InputError of a worker. Raised there, it would arrive as a page of traceback."""

    sentence: str


@dataclass(frozen=True)
class _Collate:
    """A batch and the sentences of its broken samples."""

    collate: Collate

    def __call__(self, items: list | _Failure) -> tuple[Batch, list[str]] | _Failure:
        if isinstance(items, _Failure):
            return items
        try:
            batch = self.collate([sample for sample, _ in items])
        except InputError as error:
            return _Failure(str(error))
        return batch, [line for _, sentences in items for line in sentences]


class Loader(DataLoader):
    """A DataLoader of dict batches, which records broken samples in `broken`."""

    broken: BrokenSamples | None = None

    def __iter__(self) -> Iterator[Batch]:
        for found in super().__iter__():
            if isinstance(found, _Failure):
                raise InputError(found.sentence)
            batch, sentences = found
            if sentences and self.broken is not None:
                self.broken.add(sentences)
            yield batch

    def read(self, keys: Sequence[Key]) -> Batch:
        """The batch of some keys, read once more in this process."""
        return self.collate_fn.collate([self.dataset[key][0] for key in keys])


def make_loader(
    samples: Samples,
    transform: Transform,
    collate: Collate,
    order: Order,
    batch_size: int,
    workers: int,
    *,
    seed: int = 0,
    broken: BrokenSamples | None = None,
) -> Loader:
    """Batches of `batch_size` samples. Workers stay alive between epochs.

    Args:
        transform: a sample as it is stored -> a sample of tensors. It draws from the global
            generators of Python, numpy and torch.
        collate: a list of samples -> a batch.
        workers: processes; 0 reads in this one.
        seed: of the transform's random numbers, together with the keys of `order`.
        broken: records samples that cannot be read, which are skipped; None: the first one raises
            InputError.
    """
    loader = Loader(
        SampleReader(samples, transform, seed, skip=broken is not None),
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        collate_fn=_Collate(collate),
        persistent_workers=workers > 0,
        prefetch_factor=PREFETCH if workers else None,
        pin_memory=torch.cuda.is_available(),
        # The loader draws a number per epoch, which must not come from the training's generator.
        generator=torch.Generator(),
        worker_init_fn=_ignore_interrupt,
    )
    loader.broken = broken
    return loader


def _ignore_interrupt(_worker: int) -> None:
    """A terminal sends Ctrl-C to workers too; the training process is the one to respond."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(loader: DataLoader) -> Iterator[Any]:
    """Iterate over a loader; a worker that was killed becomes an InputError.

    Raises:
        InputError: a sample cannot be read, or a worker ended, most often for lack of memory.
    """
    try:
        yield from loader
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"{reason}; --workers 0 reads without worker processes") from None
