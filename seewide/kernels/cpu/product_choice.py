"""Whether oneDNN's matrix product beats torch's own on this machine: measured once, then cached.

Three sizes of products are timed, of 16, 196 and 3,136 rows (maps of 4 x 4, 14 x 14 and 56 x 56),
which takes about 50 ms. oneDNN is chosen for a size only where it is at least `CLEARLY` times as
fast, so that noise does not change the choice, and with it the rounding, from one run to the next.
The answer is written to `$XDG_CACHE_HOME/seewide` (`~/.cache/seewide`), under a name made of the
processor, its vector instructions, torch's version and the number of threads.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.nn.functional as F

CLEARLY = 1.25
PROBES = {16: (384, 768), 196: (320, 1280), 3136: (80, 320)}  # rows: (C_in, C_out)


def onednn_is_faster(rows: int, dtype: torch.dtype = torch.float32) -> bool:
    """Whether oneDNN is clearly faster for a product of about so many rows."""
    nearest = min(PROBES, key=lambda probe: max(rows, 1) / probe + probe / max(rows, 1))
    return _speedups(torch.get_num_threads(), str(dtype).removeprefix("torch."))[nearest] >= CLEARLY


@functools.cache
def _speedups(threads: int, dtype: str) -> dict[int, float]:
    """rows of the probe -> how many times as fast oneDNN's product is."""
    path = _cache_file(threads, dtype)
    try:
        stored = {int(rows): float(ratio) for rows, ratio in json.loads(path.read_text()).items()}
        if set(stored) == set(PROBES):
            return stored
    except (OSError, ValueError, AttributeError):
        pass  # not measured yet, or not a file of ours: measured again
    measured = {rows: _measure(rows, *PROBES[rows], getattr(torch, dtype)) for rows in PROBES}
    with contextlib.suppress(OSError):  # a read-only home: every process measures for itself
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(json.dumps(measured))
        scratch.replace(path)
    return measured


def _measure(rows: int, c_in: int, c_out: int, dtype: torch.dtype) -> float:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, c_in, generator=generator).to(dtype)
    weight = torch.randn(c_out, c_in, generator=generator).to(dtype)
    bias = torch.randn(c_out, generator=generator).to(dtype)
    product = torch.ops.mkldnn._linear_pointwise
    with torch.inference_mode(), torch.autocast("cpu", enabled=False):
        torchs = least_seconds(lambda: F.linear(x, weight, bias))
        onednn = least_seconds(lambda: product(x, weight, bias, "none", [], ""))
    return torchs / onednn


def least_seconds(call: Callable[[], object], budget: float = 0.006, least: int = 5) -> float:
    """Shortest of several calls, the first two left out.

    With one thread, of processor time, which other processes disturb less than the clock's.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    call()
    call()
    best, ends, calls = float("inf"), time.perf_counter() + budget, 0
    while calls < least or time.perf_counter() < ends:
        started = clock()
        call()
        best = min(best, clock() - started)
        calls += 1
    return best


def _cache_file(threads: int, dtype: str) -> Path:
    facts = (
        _processor(),
        torch.__version__,
        torch.backends.cpu.get_cpu_capability(),
        os.environ.get("ONEDNN_MAX_CPU_ISA", ""),
        threads,
        dtype,
    )
    digest = hashlib.sha256(repr(facts).encode()).hexdigest()[:16]
    folder = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(folder) / "seewide" / f"product-{digest}.json"


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
