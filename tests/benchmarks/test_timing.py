"""Turns, ratios and memory; nothing here depends on how fast the machine is."""

import pytest
import torch

from benchmarks.timing import Rounds, peak_bytes, take_turns


def test_ratio_is_of_neighbours():
    """A machine that slows down tenfold for a while does not change it."""
    rounds = Rounds({"slow": [2.0, 20.0, 2.0], "fast": [1.0, 10.0, 1.0]})
    assert rounds.ratio("fast", "slow") == 2.0


def test_ratio_of_few_rounds():
    rounds = Rounds({"slow": [8.0], "fast": [2.0, 1.0, 1.0]})
    assert rounds.ratio("fast", "slow") == 4.0
    assert rounds.spread("slow") == (8.0, 8.0)


def test_every_round_has_everyone():
    order = []
    calls = {name: lambda name=name: order.append(name) for name in "ab"}
    taken = take_turns(calls, rounds=3, budget=60.0)
    assert {label: len(times) for label, times in taken.rounds.items()} == {"a": 3, "b": 3}
    assert set(order) == {"a", "b"}


def test_without_budget_one_round_remains():
    taken = take_turns({"a": lambda: torch.ones(1000).sum()}, rounds=5, budget=0.0)
    assert len(taken.rounds["a"]) == 1


@pytest.mark.parametrize("megabytes", [64, 128])
def test_peak_bytes(megabytes):
    """Two tensors alive at once, seen from the process; pages and allocators round."""
    count = megabytes * 2**18
    found = peak_bytes(lambda: torch.ones(count) + torch.ones(count).mul_(2), "cpu")
    assert 2 * megabytes * 2**20 <= found + 2**22 < 4 * megabytes * 2**20
