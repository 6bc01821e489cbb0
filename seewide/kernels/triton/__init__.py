"""GPU kernels in Triton, one file per operator, under the operator's name.

This file is the door. It imports neither Triton nor a kernel: an operator asks `why_not`, and only
if the answer is None imports the kernel's file, inside the function that needs it (a statement
that `torch.compile` follows). So a machine without CUDA never loads any of this.

The kernels are proven in Triton's interpreter and compiled ahead of time, but have not run on a
GPU: until then they stand behind torch's own in the operators' lists, and run when asked for, by
`seewide.use_backend("triton")` or SEEWIDE_BACKEND=triton.
"""

import functools
import importlib.util

import torch
from torch import Tensor

TRITON = importlib.util.find_spec("triton") is not None
DTYPES = (torch.float32, torch.bfloat16, torch.float16)
BEHIND = "only when asked for, as no GPU has timed it yet"
OLDEST = (8, 0)  # A100; the tensor cores before it know neither bfloat16 nor TF32


def why_not(x: Tensor) -> str | None:
    """None if the kernels of this folder can take `x` at all, else the reason in a sentence."""
    if x.device.type != "cuda":
        return f"the input is on {x.device.type}, this backend runs on cuda"
    if not TRITON:
        return "Triton is not installed; PyTorch's CUDA packages for Linux bring it"
    if x.dtype not in DTYPES:
        return f"the kernels take float32, bfloat16 and float16, got {x.dtype}"
    if torch.compiler.is_exporting():
        return "an exported program keeps the plain formulation, which every runtime knows"
    if 0 in x.shape[1:]:  # an empty batch is none of their concern: it starts no program
        return f"the input's maps are empty, shape {tuple(x.shape)}"
    return _why_not_on(x.device)


@torch.compiler.assume_constant_result
def _why_not_on(device: torch.device) -> str | None:
    return _why_not_gpu(device.index or 0)


@functools.cache
def _why_not_gpu(index: int) -> str | None:
    if torch.version.hip:
        return "this PyTorch is built for ROCm, where the kernels have never run"
    capability = torch.cuda.get_device_capability(index)
    if capability < OLDEST:
        name = torch.cuda.get_device_name(index)
        return (
            f"the kernels need compute capability 8.0, {name} has {'.'.join(map(str, capability))}"
        )
    return None
