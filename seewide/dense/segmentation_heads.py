"""Heads of semantic segmentation: UPerNet, FCN, Semantic FPN, DeepLabv3, PSPNet.

Key names are mmsegmentation's; written from facts about its version 0.30. Legend: N images,
C classes, maps fine to coarse, each (N, C_i, H_i, W_i).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .conv import ConvModule

POOLS = (1, 2, 3, 6)


def resize(x: Tensor, size: Sequence[int]) -> Tensor:
    """`x` (N, C, H, W) at `size` (height, width), bilinear, without aligned corners."""
    return F.interpolate(x, tuple(size), mode="bilinear", align_corners=False)


class SegmentationHead(nn.Module, ABC):
    """Base: `hidden` features, dropout of whole channels, a 1x1 convolution to the classes.

    Args:
        channels: of the hidden features.
        num_classes: C.
        dropout: probability of a channel to be dropped.
    """

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.1):
        super().__init__()
        self.num_classes = num_classes
        self.dropout = nn.Dropout2d(dropout)
        self.conv_seg = nn.Conv2d(channels, num_classes, 1)
        nn.init.normal_(self.conv_seg.weight, std=0.01)
        nn.init.zeros_(self.conv_seg.bias)

    @abstractmethod
    def hidden(self, maps: Sequence[Tensor]) -> Tensor:
        """(N, channels, H, W) from the maps."""

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        """Logits (N, C, H, W) at the resolution of the head."""
        return self.conv_seg(self.dropout(self.hidden(maps)))


class FCNHead(SegmentationHead):
    """3x3 convolutions on one map; the auxiliary head of the others, or one of its own.

    FCN (1411.4038).

    Args:
        in_channels: of that map.
        num_classes: C.
        index: which map.
        channels: of the hidden features.
        num_convs: how many convolutions.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        index: int = -2,
        channels: int = 256,
        num_convs: int = 1,
    ):
        super().__init__(channels, num_classes)
        self.index = index
        widths = [in_channels, *[channels] * num_convs]
        self.convs = nn.Sequential(*(ConvModule(a, b, 3) for a, b in pairwise(widths)))

    def hidden(self, maps: Sequence[Tensor]) -> Tensor:
        return self.convs(maps[self.index])


class PyramidPooling(nn.ModuleList):
    """Means over grids of several sizes, each through a 1x1 convolution and back to full size.

    PSPNet (1612.01105), section 3.2.

    Shape: (N, in_channels, H, W) -> list of len(pools) maps (N, channels, H, W)
    """

    def __init__(self, in_channels: int, channels: int, pools: Sequence[int] = POOLS):
        super().__init__(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), ConvModule(in_channels, channels))
            for size in pools
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        return [resize(layer(x), x.shape[-2:]) for layer in self]


class UPerHead(SegmentationHead):
    """UPerNet (1807.10221): pyramid pooling on the last map, a feature pyramid, their fusion.

    Args:
        in_channels: of all maps.
        num_classes: C.
        channels: of the hidden features.
    """

    def __init__(self, in_channels: Sequence[int], num_classes: int, channels: int = 512):
        super().__init__(channels, num_classes)
        last = in_channels[-1]
        self.psp_modules = PyramidPooling(last, channels)
        self.bottleneck = ConvModule(last + len(POOLS) * channels, channels, 3)
        self.lateral_convs = nn.ModuleList(ConvModule(c, channels) for c in in_channels[:-1])
        self.fpn_convs = nn.ModuleList(ConvModule(channels, channels, 3) for _ in in_channels[:-1])
        self.fpn_bottleneck = ConvModule(len(in_channels) * channels, channels, 3)

    def hidden(self, maps: Sequence[Tensor]) -> Tensor:
        last = maps[-1]
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps[:-1], strict=True)]
        laterals.append(self.bottleneck(torch.cat([last, *self.psp_modules(last)], 1)))
        for i in range(len(laterals) - 1, 0, -1):
            laterals[i - 1] = laterals[i - 1] + resize(laterals[i], laterals[i - 1].shape[-2:])
        outs = [conv(x) for conv, x in zip(self.fpn_convs, laterals[:-1], strict=True)]
        size = outs[0].shape[-2:]
        outs = [outs[0], *(resize(x, size) for x in [*outs[1:], laterals[-1]])]
        return self.fpn_bottleneck(torch.cat(outs, 1))


class FPNHead(SegmentationHead):
    """Semantic FPN (1901.02446), section 3.1: each level upsampled in steps of 2, and their sum.

    Args:
        in_channels: of the pyramid.
        num_classes: C.
        levels: of the pyramid; level i is upsampled i times.
        channels: of the hidden features.
    """

    def __init__(self, in_channels: int, num_classes: int, levels: int = 4, channels: int = 128):
        super().__init__(channels, num_classes)
        heads = []
        for level in range(levels):
            layers = []
            for step in range(max(1, level)):
                layers.append(ConvModule(channels if step else in_channels, channels, 3))
                if level:
                    layers.append(nn.Upsample(scale_factor=2, mode="bilinear", align_corners=False))
            heads.append(nn.Sequential(*layers))
        self.scale_heads = nn.ModuleList(heads)

    def hidden(self, maps: Sequence[Tensor]) -> Tensor:
        first, *others = (head(x) for head, x in zip(self.scale_heads, maps, strict=True))
        for x in others:
            first = first + resize(x, first.shape[-2:])
        return first


class ASPPHead(SegmentationHead):
    """DeepLabv3 (1706.05587), section 3.3: 3x3 convolutions of several dilations side by side.

    Args:
        in_channels: of the last map.
        num_classes: C.
        channels: of each branch and of the hidden features.
        dilations: of the branches; 1 is a 1x1 convolution.
    """

    def __init__(
        self,
        in_channels: int,
        num_classes: int,
        channels: int = 256,
        dilations: Sequence[int] = (1, 12, 24, 36),
    ):
        super().__init__(channels, num_classes)
        self.image_pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), ConvModule(in_channels, channels))
        self.aspp_modules = nn.ModuleList(
            ConvModule(in_channels, channels, 3 if d > 1 else 1, dilation=d) for d in dilations
        )
        self.bottleneck = ConvModule((len(dilations) + 1) * channels, channels, 3)

    def hidden(self, maps: Sequence[Tensor]) -> Tensor:
        x = maps[-1]
        branches = [resize(self.image_pool(x), x.shape[-2:])]
        branches += [branch(x) for branch in self.aspp_modules]
        return self.bottleneck(torch.cat(branches, 1))


class PSPHead(SegmentationHead):
    """PSPNet (1612.01105): the last map and its means over several grids.

    Args:
        in_channels: of the last map.
        num_classes: C.
        channels: of each mean and of the hidden features.
    """

    def __init__(self, in_channels: int, num_classes: int, channels: int = 256):
        super().__init__(channels, num_classes)
        self.psp_modules = PyramidPooling(in_channels, channels)
        self.bottleneck = ConvModule(in_channels + len(POOLS) * channels, channels, 3)

    def hidden(self, maps: Sequence[Tensor]) -> Tensor:
        return self.bottleneck(torch.cat([maps[-1], *self.psp_modules(maps[-1])], 1))
