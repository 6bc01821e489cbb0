"""Every sample once an epoch, whatever the number of processes, and from any optimizer step on."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from seewide.data import Order
from seewide.data.order import SHUFFLE_GLOBALLY, WINDOW
from seewide.seeding import seeded


def keys(epoch: int = 1, start: int = 0, **settings) -> list[tuple[int, ...]]:
    order = Order(50, seed=3, per_epoch=48, batch_size=12, **settings)
    order.epoch, order.step = epoch, start
    found = list(order)
    assert len(found) == len(order)
    return found


def test_processes_share_each_micro_batch():
    alone = keys()
    assert len({index for _, index in alone}) == 48
    parts = [keys(device_batch=3, rank=rank, world_size=2) for rank in range(2)]
    for step in range(4):
        for micro_batch in range(2):  # a step is two micro-batches of two processes
            at = step * 6 + micro_batch * 3
            both = parts[0][at : at + 3] + parts[1][at : at + 3]
            assert both == alone[step * 12 + micro_batch * 6 :][:6]


@pytest.mark.parametrize("ranks", [1, 2])
def test_an_epoch_can_start_at_any_step(ranks):
    settings = {"device_batch": 3, "rank": ranks - 1, "world_size": ranks}
    full = keys(**settings)
    for start in range(5):
        assert keys(start=start, **settings) == full[start * 12 // ranks :]


def test_epochs_and_seeds_differ():
    assert keys(1) != [(1, index) for _, index in keys(2)]
    assert [i for _, i in Order(9, seed=1)] != [i for _, i in Order(9, seed=2)]


def test_copies_are_in_one_step_and_in_different_micro_batches():
    alone = keys(repeats=3)
    times = Counter(index for _, index, _ in alone)
    assert set(times.values()) == {3}
    assert len(times) == 16  # of 50, in an epoch as long as before
    assert len(set(alone)) == 48
    for step in range(4):
        parts = [alone[step * 12 + at :][:4] for at in (0, 4, 8)]
        first, *others = ([index for _, index, _ in part] for part in parts)
        assert len(set(first)) == 4
        assert all(other == first for other in others)
        assert [{copy for *_, copy in part} for part in parts] == [{0}, {1}, {2}]


def test_repeats_that_do_not_divide_a_step():
    found = Order(10, seed=0, per_epoch=10, batch_size=5, repeats=3)
    times = Counter(index for _, index, _ in found)
    assert sorted(times.values()) == [1, 3, 3, 3]


def test_copies_differ_and_the_first_is_as_without_copies():
    draws = []
    for key in ((7, 5), (7, 5, 0), (7, 5, 1)):
        with seeded(0, *key):
            draws.append(torch.rand(2).tolist())
    assert draws[0] == draws[1] != draws[2]


def test_small_sets_in_shards_are_shuffled_globally():
    shards = np.repeat(np.arange(10), 5)
    assert keys(shards=shards) == keys()


def test_large_sets_are_read_shard_after_shard():
    per_shard = 1000
    count = SHUFFLE_GLOBALLY + per_shard
    shards = np.repeat(np.arange(count // per_shard), per_shard)
    order = Order(count, seed=0, shards=shards)
    indices = np.fromiter((index for _, index in order), int)
    assert np.array_equal(np.sort(indices), np.arange(count))
    files = shards[indices]
    first = np.array([np.flatnonzero(files == shard)[0] for shard in range(shards.max() + 1)])
    last = np.array([np.flatnonzero(files == shard)[-1] for shard in range(shards.max() + 1)])
    assert (last - first).max() < 1.1 * WINDOW  # so a file is open for a part of the epoch
    assert (np.diff(files) != 0).mean() > 0.9  # neighbors are of different files
    assert not np.array_equal(np.argsort(first), np.arange(len(first)))  # files in random order
    order.epoch = 1
    assert not np.array_equal(np.fromiter((index for _, index in order), int), indices)
