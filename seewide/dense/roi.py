"""Features of regions, and the heads that read them. Key names are mmdetection's.

Mask R-CNN (1703.06870), section 3; FPN (1612.03144), section 4.2. Written from facts about
mmdetection 2.28. Legend: R regions of all images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torchvision.ops import roi_align

from .conv import ConvModule

FINEST = 56  # regions of up to twice this side are read from the finest map


class RegionPool(nn.Module):
    """RoIAlign from the pyramid's level that fits the size of the region.

    Args:
        size: side of the output; each cell is the mean of as many samples as it has pixels.
        strides: of the levels used; further maps are not read.

    Shape: list of (N, D, H_i, W_i), N tensors (R_n, 4) -> (R, D, size, size)
    """

    def __init__(self, size: int, strides: Sequence[int] = (4, 8, 16, 32)):
        super().__init__()
        self.size = size
        self.strides = tuple(strides)

    def forward(self, maps: Sequence[Tensor], boxes: Sequence[Tensor]) -> Tensor:
        rois = torch.cat(
            [torch.cat([box.new_full((box.shape[0], 1), i), box], 1) for i, box in enumerate(boxes)]
        )
        level = self.levels(rois[:, 1:])
        orders, features = [], []
        for i, stride in enumerate(self.strides):
            order = (level == i).nonzero()[:, 0]
            features.append(roi_align(maps[i], rois[order], self.size, 1 / stride, 0, aligned=True))
            orders.append(order)
        return torch.cat(features)[torch.cat(orders).argsort()]

    def levels(self, boxes: Tensor) -> Tensor:
        """Index of the level of each of `boxes` (R, 4): floor(log2(sqrt(w h) / 56 + 1e-6))."""
        side = (boxes[:, 2:] - boxes[:, :2]).prod(1).sqrt()
        level = (side / FINEST + 1e-6).log2().floor()
        return level.clamp(0, len(self.strides) - 1).long()


class BoxHead(nn.Module):
    """Class logits and class-specific box offsets of a region.

    "Shared2FC" is `num_convs=0, num_fcs=2`, "4conv1fc" is `num_convs=4, num_fcs=1`.

    Args:
        num_classes: C.
        channels: of the pyramid and of the convolutions.
        num_convs: 3x3 convolutions with batch norm and ReLU.
        num_fcs: linear layers with ReLU.
        hidden: outputs of each linear layer.
        size: side of a region's features.

    Shape: (R, channels, size, size) -> (R, C + 1) with the background last, (R, 4 C)
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 256,
        num_convs: int = 0,
        num_fcs: int = 2,
        hidden: int = 1024,
        size: int = 7,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.shared_convs = nn.ModuleList(
            ConvModule(channels, channels, 3) for _ in range(num_convs)
        )
        widths = [channels * size**2, *[hidden] * num_fcs]
        self.shared_fcs = nn.ModuleList(
            nn.Linear(before, after) for before, after in pairwise(widths)
        )
        self.fc_cls = nn.Linear(hidden, num_classes + 1)
        self.fc_reg = nn.Linear(hidden, 4 * num_classes)
        for conv in self.shared_convs:
            nn.init.kaiming_normal_(conv.conv.weight, mode="fan_out", nonlinearity="relu")
        for linear in self.shared_fcs:
            nn.init.xavier_uniform_(linear.weight)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.normal_(self.fc_reg.weight, std=0.001)
        for linear in (*self.shared_fcs, self.fc_cls, self.fc_reg):
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        for conv in self.shared_convs:
            x = conv(x)
        x = x.flatten(1)
        for linear in self.shared_fcs:
            x = linear(x).relu()
        return self.fc_cls(x), self.fc_reg(x)


class MaskHead(nn.Module):
    """A mask for each class: four 3x3 convolutions, a transposed 2x2 one, a 1x1 one.

    Args:
        num_classes: C.
        channels: of the pyramid and the hidden layers.

    Shape: (R, channels, 14, 14) -> (R, C, 28, 28)
    """

    def __init__(self, num_classes: int, channels: int = 256):
        super().__init__()
        self.convs = nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in range(4))
        self.upsample = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        self.conv_logits = nn.Conv2d(channels, num_classes, 1)
        for layer in (*(conv.conv for conv in self.convs), self.upsample, self.conv_logits):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        return self.conv_logits(self.upsample(x).relu())
