"""Memory of a training process on a CPU."""

import ctypes
import os
import sys

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # of malloc.h


def keep_freed_memory() -> bool:
    """Have glibc keep what is freed, for the next step to use again; whether it will.

    As it is, it returns the activations of each step to the kernel, which hands every page out anew
    and zeroed: 6% of the time of a step of unireplknet_a at 128 px, batch 16, and 20% at 64 px,
    batch 32. For the rest of the process; settings in the environment (MALLOC_...) are left alone.
    """
    if sys.platform != "linux" or any(key.startswith("MALLOC_") for key in os.environ):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is None:
        return False
    settings = {TRIM_THRESHOLD: 2**31 - 1, TOP_PAD: 64 << 20, MMAP_THRESHOLD: 32 << 20}
    return all(mallopt(option, value) == 1 for option, value in settings.items())
