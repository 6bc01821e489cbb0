"""Which pictures an epoch reads, in which order, and which of them this process reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler


class Order(Sampler[tuple[int, int]]):
    """Keys (epoch, index) of an epoch; shuffled by (seed, epoch), or as they come.

    An epoch is `take` pictures, updates of `update` pictures one after the other, an update passes
    of `ranks` x `device_batch`, and of each pass this process has the `rank`-th part. So which
    pictures an update learns from does not depend on the number of processes.

    `epoch` and `start`, the first update of the epoch to read, are set before each iteration.

    Args:
        images: in the split.
        seed: of the shuffling; None: as they come.
        take: pictures of an epoch over all processes; default: all.
    """

    def __init__(
        self,
        images: int,
        *,
        seed: int | None = None,
        take: int | None = None,
        update: int = 1,
        device_batch: int = 1,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        self.images = images
        self.seed = seed
        self.take = images if take is None else take
        self.update, self.device_batch, self.rank, self.ranks = update, device_batch, rank, ranks
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return (self.take - self.start * self.update) // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        order = np.arange(self.images)
        if self.seed is not None:
            order = np.random.default_rng((self.seed, self.epoch)).permutation(self.images)
        rest = order[self.start * self.update : self.take]
        if self.ranks > 1:
            rest = rest.reshape(-1, self.ranks, self.device_batch)[:, self.rank].ravel()
        epoch = self.epoch
        return ((epoch, int(index)) for index in rest)
