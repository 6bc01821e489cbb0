"""Modules built from `seewide.ops`.

A layer with several branches always has them; its `fuse()` returns the single-branch layer that
computes the same in evaluation mode.
"""

from .batch_norm_head import BatchNormHead, DistilledHead
from .biased_attention import BiasedAttention, distance_index, resize_biases
from .conv_norm import ConvNorm, NormConvNorm
from .dcnv3 import DCNv3, DepthwiseConv2dLast
from .depthwise import DepthwiseConv2d
from .dilated_reparam import DilatedReparamBlock
from .grn import GlobalResponseNorm
from .layout import channels_last_on_cpu
from .ls_conv import LargeKernelPerception, LSConv, RepDepthwise, StaticAggregation
from .peripheral import PartialMixer, PeripheralConv2d, PeripheralReparamBlock
from .rfa import ReceptiveFieldAggregator
from .scaled_linear import ScaledLinear
from .strips import StripPair, StripReparamBlock
from .unireplknet_block import UniRepLKNetBlock

__all__ = [
    "BatchNormHead",
    "BiasedAttention",
    "ConvNorm",
    "DCNv3",
    "DepthwiseConv2d",
    "DepthwiseConv2dLast",
    "DilatedReparamBlock",
    "DistilledHead",
    "GlobalResponseNorm",
    "LSConv",
    "LargeKernelPerception",
    "NormConvNorm",
    "PartialMixer",
    "PeripheralConv2d",
    "PeripheralReparamBlock",
    "ReceptiveFieldAggregator",
    "RepDepthwise",
    "ScaledLinear",
    "StaticAggregation",
    "StripPair",
    "StripReparamBlock",
    "UniRepLKNetBlock",
    "channels_last_on_cpu",
    "distance_index",
    "resize_biases",
]
