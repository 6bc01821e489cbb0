"""Batches: pictures read and transformed by processes of their own, ahead of the training."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from seewide.errors import InputError
from seewide.train.data.order import Order
from seewide.train.data.picture import read_picture
from seewide.train.data.split import Split
from seewide.train.seeding import seeded


class Pictures(Dataset):
    """Reads, transforms, and draws the chance of a picture from (seed, epoch, index) alone."""

    def __init__(self, split: Split, transform: Callable, seed: int = 0) -> None:
        self.split = split
        self.transform = transform
        self.seed = seed

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, key: tuple[int, int]) -> tuple[Tensor, int]:
        epoch, index = key
        with seeded(self.seed, epoch, index):
            x_CHW = self.transform(read_picture(self.split.pictures[index]))
        return x_CHW, self.split.labels[index]


def make_loader(
    split: Split, transform: Callable, order: Order, batch_size: int, workers: int, *, seed: int = 0
) -> DataLoader:
    """Batches (N, 3, H, W), (N,). Workers stay between epochs."""
    return DataLoader(
        Pictures(split, transform, seed),
        batch_size=batch_size,
        sampler=order,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        # The loader draws a number per epoch; from here, so that it takes none of the training's.
        generator=torch.Generator(),
        worker_init_fn=_ignore_ctrl_c,
    )


def _ignore_ctrl_c(_worker: int) -> None:
    """A terminal sends Ctrl-C to workers too; the training process is the one to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


def batches(loader: DataLoader) -> Iterator[tuple[Tensor, Tensor]]:
    """Iterate; a worker's InputError, which arrives as a page of traceback, is one line again."""
    try:
        yield from loader
    except InputError as error:
        raise InputError(str(error).strip().rpartition("InputError: ")[2]) from None
