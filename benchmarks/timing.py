"""Time, memory and the machine's own limit: what one run measures and how.

Rivals take turns and are compared round by round (README.md). Times of two runs never meet.
"""

from __future__ import annotations

import ctypes
import gc
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from seewide.analysis import cost

Call = Callable[[], object]
LEAST = 0.01  # seconds that one measurement lasts, by repeating its call


@dataclass(frozen=True)
class Rounds(cost.Timings):
    """Timings in which a slow rival may sit out the later rounds."""

    def spread(self, label: str) -> tuple[float, float]:
        """First and third quartile; of one round, that round."""
        if len(self.rounds[label]) == 1:
            return (self.rounds[label][0],) * 2
        return super().spread(label)

    def ratio(self, label: str, base: str) -> float:
        """How many times as fast `label` is as `base`: median over the rounds that both have."""
        pairs = zip(self.rounds[base], self.rounds[label], strict=False)
        return statistics.median(slow / fast for slow, fast in pairs)

    def best(self, labels: list[str]) -> str:
        """The fastest of `labels` by its median."""
        return min(labels, key=self.median)


def seconds(call: Call, repeats: int = 1) -> float:
    """Per call, with the accelerator's work waited for."""
    _finish()
    started = time.perf_counter()
    for _ in range(repeats):
        call()
    _finish()
    return (time.perf_counter() - started) / repeats


def take_turns(calls: Mapping[str, Call], rounds: int = 9, budget: float = 2.0) -> Rounds:
    """Time callables that have each been called once before.

    Args:
        rounds: every round times every callable, beginning with another one each time.
        budget: seconds for each callable. A slow one sits out the rounds beyond that, but has one.
    """
    repeats, turns = {}, {}
    for label, call in calls.items():
        once = seconds(call)
        if once < budget / 4:
            once = seconds(call)  # the first of a new shape may still choose and allocate
        repeats[label] = max(1, round(LEAST / once))
        turns[label] = max(1, min(rounds, int(budget / (once * repeats[label]))))
    taken: dict[str, list[float]] = {label: [] for label in calls}
    for turn in range(rounds):
        labels = [label for label in calls if turn < turns[label]]
        first = turn % max(1, len(labels))
        for label in labels[first:] + labels[:first]:
            taken[label].append(seconds(calls[label], repeats[label]))
    return Rounds(taken)


def matrix_peak(device: str, dtype: torch.dtype, side: int = 1536) -> float:
    """Multiplications and additions per second of torch's own product of square matrices."""
    side = side if device == "cpu" else 8192
    a, b = (torch.randn(side, side, device=device).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    call = lambda: torch.mm(a, b, out=out)  # noqa: E731 (a name for the timer)
    call()
    return 2 * side**3 / min(seconds(call) for _ in range(7))


def peak_bytes(call: Call, device: str) -> int:
    """What `call` adds to the memory in use, at its worst moment.

    On an accelerator, the allocator's figure. On Linux, the process's: pages are given back first,
    then the kernel's high-water mark is set anew, so that the scratch memory of oneDNN counts too.
    Elsewhere the tensors alive, which leaves that out.
    """
    if device != "cpu":
        return cost.peak_memory(call, cuda=True)
    if not sys.platform.startswith("linux"):
        return cost.peak_memory(call, cuda=False)
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    before = _status("VmRSS")
    call()
    return max(0, _status("VmHWM") - before)


def _status(field: str) -> int:
    """Bytes, of /proc/self/status."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _finish() -> None:
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
