"""Which samples an epoch reads, in which order, and which of them this process reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# Samples in shards are shuffled globally up to this many; beyond, each moves within a window.
SHUFFLE_GLOBALLY = 200_000
WINDOW = 50_000  # 5 GB of ImageNet's images: a shard is still in memory for its next image

Key = tuple[int, ...]


class Order(Sampler[Key]):
    """Keys (epoch, index) of an epoch; shuffled by (seed, epoch), or in sequence.

    An epoch reads `per_epoch` samples: optimizer steps of `batch_size` samples each, a step being
    micro-batches of `world_size` x `device_batch`, of which this process has the `rank`-th part. So
    the samples of an optimizer step do not depend on the number of processes.

    `epoch` and `step`, the first optimizer step of the epoch to read, are set before each
    iteration.

    Args:
        count: number of samples there are.
        seed: of the shuffling; None: in sequence.
        per_epoch: samples of an epoch over all processes; default: all.
        batch_size: samples of an optimizer step.
        device_batch: samples of a micro-batch on one device.
        rank, world_size: this process, and how many there are.
        repeats: how often a sample occurs in an epoch, whose length stays, so that other samples
            wait for another epoch. The copies belong to one optimizer step and there to different
            micro-batches where possible (Hoffer et al., Augment your batch; timm's
            RepeatAugSampler). Keys are (epoch, index, copy) then.
        shards: index of the file that each sample lies in, see `Samples`. A large set is then read
            file by file, in random order, in which each sample moves by up to WINDOW positions.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int | None = None,
        per_epoch: int | None = None,
        batch_size: int = 1,
        device_batch: int = 1,
        rank: int = 0,
        world_size: int = 1,
        repeats: int = 1,
        shards: np.ndarray | None = None,
    ) -> None:
        self.count = count
        self.seed = seed
        self.per_epoch = count if per_epoch is None else per_epoch
        self.batch_size, self.device_batch = batch_size, device_batch
        self.rank, self.world_size = rank, world_size
        self.repeats, self.shards = repeats, shards
        self.epoch, self.step = 0, 0

    def __len__(self) -> int:
        return (self.per_epoch - self.step * self.batch_size) // self.world_size

    def __iter__(self) -> Iterator[Key]:
        keys = self._of_epoch()[self.step * self.batch_size :]
        if self.world_size > 1:
            keys = keys.reshape(-1, self.world_size, self.device_batch)[:, self.rank].ravel()
        epoch = self.epoch
        if self.repeats == 1:
            return ((epoch, int(key)) for key in keys)
        return ((epoch, *map(int, divmod(key, self.repeats))) for key in keys)

    def _of_epoch(self) -> np.ndarray:
        """`per_epoch` numbers, index * repeats + copy."""
        order = np.arange(self.count)
        if self.seed is not None:
            order = self._shuffled(np.random.default_rng((self.seed, self.epoch)))
        if self.repeats == 1:
            return order[: self.per_epoch]
        copies = np.arange(self.repeats)
        keys = (order[:, None] * self.repeats + copies).ravel()[: self.per_epoch]
        steps = keys.reshape(-1, self.batch_size)
        by_copy = np.argsort(steps % self.repeats, axis=1, kind="stable")
        return np.take_along_axis(steps, by_copy, axis=1).ravel()

    def _shuffled(self, generator: np.random.Generator) -> np.ndarray:
        if self.shards is None or self.count <= SHUFFLE_GLOBALLY:
            return generator.permutation(self.count)
        position = generator.permutation(int(self.shards.max()) + 1)
        order = np.argsort(position[self.shards], kind="stable")
        offsets = generator.uniform(0, WINDOW, self.count)
        return order[np.argsort(np.arange(self.count) + offsets)]
