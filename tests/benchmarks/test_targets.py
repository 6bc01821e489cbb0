"""How aims are judged; that each can be measured at all is seen by running them."""

import numpy as np
import pytest

from benchmarks.conditions import Settings
from benchmarks.targets import Aim, farthest, twice


@pytest.mark.parametrize(
    ("asked", "measured", "met"),
    [(">= 8", 8.0, True), (">= 8", 7.9, False), ("<= 1.05", 1.05, True), ("<= 1.05", 1.06, False)],
)
def test_aim(asked, measured, met):
    aim = Aim(1, "a ratio", asked, measured)
    assert aim.met is met
    assert ("met" if met else "MISSED") in aim.row()


def test_a_miss_is_measured_once_more():
    seen = []

    def run(settings: Settings) -> int:
        seen.append(settings.rounds)
        return len(seen)

    settings = Settings()
    assert twice(run, lambda found: found == 1, settings) == 2
    assert seen == [settings.rounds, 3 * settings.rounds]
    assert twice(run, lambda found: False, settings) == 3


def test_farthest_from_the_line():
    """Times in proportion are on it; one that is nine times as long is three from the best line."""
    macs = np.array([1.0, 10.0, 100.0])
    assert farthest(macs, 2 * macs)[0] == pytest.approx(1)
    off, which = farthest(macs, macs * [9, 1, 1])
    assert off == pytest.approx(3)
    assert which == 0
