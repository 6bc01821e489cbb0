"""Modules over `seewide.ops`. A multi-branch layer has its branches, always; `fuse()` returns the
plain layer that replaces it."""

from .depthwise import DepthwiseConv2d
from .dilated_reparam import DilatedReparamBlock
from .grn import GlobalResponseNorm
from .layout import channels_last_on_cpu

__all__ = [
    "DepthwiseConv2d",
    "DilatedReparamBlock",
    "GlobalResponseNorm",
    "channels_last_on_cpu",
]
