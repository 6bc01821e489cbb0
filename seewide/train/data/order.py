"""Which pictures an epoch reads, in which order, and which of them this process reads."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from torch.utils.data import Sampler

# Pictures in shards are shuffled as a whole up to so many, beyond it each moves within a window.
SHUFFLE_WHOLE = 200_000
WINDOW = 50_000  # 5 GB of ImageNet's pictures, so a shard is still in memory at its next picture

Key = tuple[int, ...]


class Order(Sampler[Key]):
    """Keys (epoch, index) of an epoch; shuffled by (seed, epoch), or as they come.

    An epoch is `take` pictures, updates of `update` pictures one after the other, an update passes
    of `ranks` x `device_batch`, and of each pass this process has the `rank`-th part. So which
    pictures an update learns from does not depend on the number of processes.

    `epoch` and `start`, the first update of the epoch to read, are set before each iteration.

    Args:
        images: in the split.
        seed: of the shuffling; None: as they come.
        take: pictures of an epoch over all processes; default: all.
        repeats: times that a picture comes in an epoch, which stays as long, so others wait for
            another one. Its copies are of one update, and in that of different passes as far as
            there are (Hoffer et al., Augment your batch; timm's RepeatAugSampler). Keys are
            (epoch, index, copy) then.
        shards: the file that each picture lies in, see Split. A large set is then read file after
            file, in random order, in which each picture moves by up to WINDOW places.
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
        repeats: int = 1,
        shards: np.ndarray | None = None,
    ) -> None:
        self.images = images
        self.seed = seed
        self.take = images if take is None else take
        self.update, self.device_batch, self.rank, self.ranks = update, device_batch, rank, ranks
        self.repeats, self.shards = repeats, shards
        self.epoch, self.start = 0, 0

    def __len__(self) -> int:
        return (self.take - self.start * self.update) // self.ranks

    def __iter__(self) -> Iterator[Key]:
        keys = self._of_epoch()[self.start * self.update :]
        if self.ranks > 1:
            keys = keys.reshape(-1, self.ranks, self.device_batch)[:, self.rank].ravel()
        epoch = self.epoch
        if self.repeats == 1:
            return ((epoch, int(key)) for key in keys)
        return ((epoch, *map(int, divmod(key, self.repeats))) for key in keys)

    def _of_epoch(self) -> np.ndarray:
        """`take` numbers, index * repeats + copy."""
        order = np.arange(self.images)
        if self.seed is not None:
            order = self._shuffled(np.random.default_rng((self.seed, self.epoch)))
        if self.repeats == 1:
            return order[: self.take]
        copies = np.arange(self.repeats)
        keys = (order[:, None] * self.repeats + copies).ravel()[: self.take]
        updates = keys.reshape(-1, self.update)
        by_copy = np.argsort(updates % self.repeats, axis=1, kind="stable")
        return np.take_along_axis(updates, by_copy, axis=1).ravel()

    def _shuffled(self, chance: np.random.Generator) -> np.ndarray:
        if self.shards is None or self.images <= SHUFFLE_WHOLE:
            return chance.permutation(self.images)
        turn = chance.permutation(int(self.shards.max()) + 1)
        order = np.argsort(turn[self.shards], kind="stable")
        return order[np.argsort(np.arange(self.images) + chance.uniform(0, WINDOW, self.images))]
