"""GPU kernels in Triton, one file per operator, under the operator's name.

This module imports neither Triton nor a kernel. An operator calls `cannot`, and only if the answer
is None imports the file of its kernel, inside the function that needs it (a statement that
`torch.compile` can follow). So a machine without CUDA never loads any of this.

The kernels are tested in Triton's interpreter and compiled ahead of time, but no GPU has run and
timed them yet. Until then they are never preferred, and run when forced by
`seewide.use_backend("triton")` or SEEWIDE_BACKEND=triton.
"""

import functools
import importlib.util

import torch
from torch import Tensor

from .._plain import needs_plain_operators

TRITON = importlib.util.find_spec("triton") is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
OLDEST = (8, 0)  # A100; older tensor cores support neither bfloat16 nor TF32


def prefer(*args) -> bool:
    """False for all arguments: no GPU has timed the kernels yet."""
    return False


def slower(*args) -> str:
    """Why `prefer` is False, for `explain`."""
    return "only when forced, because no GPU has timed it yet"


def cannot(x: Tensor) -> str | None:
    """None if the kernels of this folder support `x`, else the reason in a sentence."""
    if x.device.type != "cuda":
        return f"the input is on {x.device.type}, this backend runs on cuda"
    if not TRITON:
        return "Triton is not installed; PyTorch's CUDA packages for Linux bring it"
    if x.dtype not in DTYPES:
        return f"the kernels take float32, bfloat16 and float16, got {x.dtype}"
    reason = needs_plain_operators()
    if reason is not None:
        return reason
    if 0 in x.shape[1:]:  # an empty batch needs no check: it launches no program
        return "the input's maps are empty"
    return _cannot_on(x.device)


@torch.compiler.assume_constant_result
def _cannot_on(device: torch.device) -> str | None:
    return _cannot_on_gpu(device.index or 0)


@functools.cache
def _cannot_on_gpu(index: int) -> str | None:
    if torch.version.hip:
        return "this PyTorch is built for ROCm, where the kernels are not tested"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        name = torch.cuda.get_device_name(index)
        return (
            f"the kernels need compute capability 8.0, {name} has {'.'.join(map(str, capability))}"
        )
    return None
