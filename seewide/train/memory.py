"""Memory of a training process on a CPU."""

import ctypes
import os
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def reuse_freed_memory() -> bool:
    """Have glibc reuse freed memory instead of returning it to the kernel; returns whether it does.

    By default it returns the activations of each step, and the kernel zeroes every page again: 6%
    of the time of a step of unireplknet_a at 128 px, batch 16, and 20% at 64 px, batch 32. The
    setting holds for the rest of the process; MALLOC_... in the environment takes precedence.
    """
    if sys.platform != "linux" or any(key.startswith("MALLOC_") for key in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # not in other C libraries
    if mallopt is None:
        return False
    settings = {TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20, MMAP_THRESHOLD: 32 << 20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())
