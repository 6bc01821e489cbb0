"""Batches: pictures read and transformed by processes of their own, ahead of the training."""

from __future__ import annotations

import contextlib
import signal
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from seewide.errors import InputError
from seewide.train.data.broken import Broken
from seewide.train.data.order import Key, Order
from seewide.train.data.picture import read_picture
from seewide.train.data.split import Split
from seewide.train.seeding import left_alone, reseed

AHEAD = 4  # batches that each worker has ready; a slow one, of large pictures, holds nobody up
IN_A_ROW = 100  # broken pictures, after which this is not about single pictures


class Pictures(Dataset):
    """Reads, transforms, and draws the chance of a picture from (seed, *key) alone.

    Items are picture, label, and the sentences of pictures that could not be read, one a line. The
    next picture that can be read takes their place.

    Args:
        skip: whether to do so; otherwise the first sentence is an InputError.
    """

    def __init__(
        self, split: Split, transform: Callable, seed: int = 0, *, skip: bool = False
    ) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed
        self.most = min(IN_A_ROW, len(split)) if skip else 1

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: Key) -> tuple[Tensor, int, str]:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[Key]) -> list[tuple[Tensor, int, str]]:
        """A batch, as torch's loader asks for it."""
        # A worker's generators serve nothing else.
        with contextlib.nullcontext() if get_worker_info() else left_alone():
            return [self._drawn(key) for key in keys]

    def _drawn(self, key: Key) -> tuple[Tensor, int, str]:
        sentences: list[str] = []
        for step in range(self.most):
            index = (key[1] + step) % len(self)
            try:
                picture = read_picture(self.split.pictures[index])
            except InputError as error:
                sentences.append(str(error))
                continue
            reseed(self.seed, *key)
            return self.transform(picture), int(self.split.labels[index]), "\n".join(sentences)
        many = f"{len(sentences)} pictures in a row cannot be read; " if self.most > 1 else ""
        raise InputError(f"{many}{sentences[-1]}")


class Loader(DataLoader):
    """A DataLoader that tells `broken` of broken pictures, and yields pictures and labels."""

    broken: Broken | None = None

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for x_NCHW, y_N, sentences in super().__iter__():
            if any(sentences):
                self.broken.add(line for one in sentences for line in one.splitlines())
            yield x_NCHW, y_N


def make_loader(
    split: Split,
    transform: Callable,
    order: Order,
    batch_size: int,
    workers: int,
    *,
    seed: int = 0,
    broken: Broken | None = None,
) -> Loader:
    """Batches (N, 3, H, W), (N,). Workers stay between epochs.

    Args:
        broken: who is told of pictures that cannot be read; None: the first one is an error.
    """
    loader = Loader(
        Pictures(split, transform, seed, skip=broken is not None),
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        prefetch_factor=AHEAD if workers else None,
        pin_memory=torch.cuda.is_available(),
        # The loader draws a number per epoch; from here, so that it takes none of the training's.
        generator=torch.Generator(),
        worker_init_fn=_ignore_ctrl_c,
    )
    loader.broken = broken
    return loader


def _ignore_ctrl_c(_worker: int) -> None:
    """A terminal sends Ctrl-C to workers too; the training process is the one to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate; a worker's InputError, which arrives as a page of traceback, is one line again."""
    try:
        yield from loader
    except InputError as error:
        raise InputError(str(error).strip().rpartition("InputError: ")[2]) from None


def on_device(
    images: Iterator[tuple[Tensor, Tensor]],
    device: torch.device,
    layout: torch.memory_format = torch.preserve_format,
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches on the device; to a GPU the next one travels while this one is learned from."""

    def sent(x_NCHW: Tensor, y_N: Tensor) -> tuple[Tensor, Tensor]:
        x_NCHW, y_N = (part.to(device, non_blocking=True) for part in (x_NCHW, y_N))
        return x_NCHW.to(memory_format=layout), y_N

    if device.type != "cuda":
        for batch in images:
            yield sent(*batch)
        return
    road = torch.cuda.Stream(device)
    underway: deque[tuple[tuple[Tensor, Tensor], torch.cuda.Event]] = deque()

    def arrived() -> tuple[Tensor, Tensor]:
        batch, done = underway.popleft()
        here = torch.cuda.current_stream(device)
        here.wait_event(done)
        for part in batch:  # of the road's memory, which must not go round before it is read
            part.record_stream(here)
        return batch

    for batch in images:
        with torch.cuda.stream(road):
            underway.append((sent(*batch), road.record_event()))
        if len(underway) > 1:
            yield arrived()
    while underway:
        yield arrived()
