"""All chance of a run follows from (seed, epoch) and, for a picture, (seed, epoch, index).

So a resumed run needs no generator states, the number of workers changes nothing, and the same
picture meets the same augmentation wherever it is read.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_all(*key: int) -> None:
    """Seed Python, numpy and torch (every device) from a few whole numbers."""
    seed = _mix(key)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def reseed(*key: int) -> None:
    """Seed the CPU generators."""
    seed = _mix(key)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


_SPARE: list[np.random.MT19937] = []  # as many as `left_alone` was ever nested


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Whatever is drawn and seeded inside, the CPU generators are outside as they were."""
    states = random.getstate(), torch.get_rng_state()
    # numpy's state takes 65 us to get and set, and a new generator 80; another one in its place, 1.
    own, spare = np.random.get_bit_generator(), _SPARE.pop() if _SPARE else np.random.MT19937(0)
    np.random.set_bit_generator(spare)
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_bit_generator(own)
        _SPARE.append(spare)
        torch.set_rng_state(states[1])


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the CPU generators inside, and leave them outside as they were."""
    with left_alone():
        reseed(*key)
        yield


def _mix(key: tuple[int, ...]) -> int:
    """32 bits in which neighbouring keys have nothing in common."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
