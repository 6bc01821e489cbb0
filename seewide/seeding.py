"""Random number generators seeded by keys: (seed, epoch), or (seed, epoch, index) of a sample.

A resumed run therefore needs no generator states, the number of workers changes nothing, and the
same sample gets the same augmentation in whichever process it is read.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator

import numpy as np
import torch


def seed_all(*key: int) -> None:
    """Seed Python, numpy and torch (all devices) from a few integers."""
    seed = _hash(key)
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def seed_cpu(*key: int) -> None:
    """Seed the CPU generators of Python, numpy and torch."""
    seed = _hash(key)
    random.seed(seed)
    np.random.seed(seed)
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def preserve_generators() -> Iterator[None]:
    """Restore the state of the CPU generators on exit."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])


@contextlib.contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed the CPU generators inside the block and restore their state on exit."""
    with preserve_generators():
        seed_cpu(*key)
        yield


def _hash(key: tuple[int, ...]) -> int:
    """32 bits; neighbouring keys give unrelated seeds."""
    return int(np.random.SeedSequence(key).generate_state(1)[0])
