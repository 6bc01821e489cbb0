"""Memory layout."""

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..ops._dispatch import in_transform


def channels_last_on_cpu(x: Tensor) -> Tensor:
    """`x` (N, C, H, W) in the layout in which networks of depthwise and pointwise layers run best.

    On the CPU that is channels last, end to end: both fast depthwise paths take it, and the
    pointwise layers read it without a copy. On other devices the caller's layout stays.
    """
    if torch.jit.is_scripting():
        return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
    else:
        if has_torch_function((x,)):
            return handle_torch_function(channels_last_on_cpu, (x,), x)
        if in_transform():  # vmap supports no memory formats
            return x
        return x.contiguous(memory_format=torch.channels_last) if x.device.type == "cpu" else x
