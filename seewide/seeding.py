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


@contextlib.contextmanager
def left_alone() -> Iterator[None]:
    """Whatever is drawn and seeded inside, the CPU generators are outside as they were."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the CPU generators inside, and leave them outside as they were."""
    with left_alone():
        reseed(*key)
        yield


def _mix(key: tuple[int, ...]) -> int:
    """32 bits in which neighbouring keys have nothing in common."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
