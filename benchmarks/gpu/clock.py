"""Time on a GPU: CUDA events, medians, a flushed cache, inputs in turn; and the GPU's limits."""

from __future__ import annotations

import contextlib
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from triton.errors import TritonError

Call = Callable[[], object]
SLOW = 0.05  # seconds; a slower call is timed three times, not for 40 ms


@dataclass
class Budget:
    """Seconds that a run may take; what comes after is left out and named, as is what fails."""

    seconds: float
    started: float = field(default_factory=time.monotonic)
    left_out: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def spent(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self.started

    def allows(self, what: str, share: float = 1.0) -> bool:
        """Whether less than this share of the time is spent; if not, `what` is noted."""
        if self.spent() < share * self.seconds:
            return True
        self.left_out.append(what)
        return False

    @contextlib.contextmanager
    def survives(self, what: str) -> Iterator[None]:
        """Go on after a wrong result, too little memory or a kernel that does not run; note it."""
        try:
            yield
        except (AssertionError, RuntimeError, TritonError) as error:
            self.failed.append(f"{what}: {str(error).strip().partition(chr(10))[0]}")


def milliseconds(calls: Sequence[Call], device: str) -> float:
    """Median time of a call; `calls` do the same on inputs of their own, and take turns."""
    turn = itertools.cycle(calls)

    def call() -> object:
        return next(turn)()

    call()
    if device == "cpu":  # the tests of this folder
        return 1e3 * min(_seconds(call, device) for _ in range(2))
    first = _seconds(call, device)
    if first > SLOW:
        return 1e3 * statistics.median([first, *(_seconds(call, device) for _ in range(2))])
    from triton.testing import do_bench  # it clears the L2 cache before each call

    return do_bench(call, warmup=10, rep=40, return_mode="median")


def _seconds(call: Call, device: str) -> float:
    if device == "cpu":
        start = time.perf_counter()
        call()
        return time.perf_counter() - start
    begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    begin.record()
    call()
    end.record()
    end.synchronize()
    return begin.elapsed_time(end) / 1e3


@dataclass(frozen=True)
class Limits:
    """Of the GPU, measured in the same run: bytes per second of a copy, operations per second of
    torch's matrix product by dtype (float32 without TF32)."""

    bytes: float
    operations: dict[torch.dtype, float]

    @classmethod
    def measure(cls, device: str, size: int = 8192) -> Limits:
        source = torch.empty(16 * size * size, dtype=torch.bfloat16, device=device)
        target = torch.empty_like(source)
        copied = 2 * source.numel() * source.element_size()
        speed = copied / milliseconds([lambda: target.copy_(source)], device) * 1e3
        operations = {}
        for dtype in (torch.float32, torch.bfloat16, torch.float16):
            a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
            product = milliseconds([lambda a=a, b=b: a @ b], device)
            operations[dtype] = 2 * size**3 / product * 1e3
        return cls(speed, operations)
