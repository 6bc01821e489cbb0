"""A large kernel as two strips, trained beside a small square one.

SLaK (arXiv 2207.03620), section 3.1: K x N plus N x K covers the extent of K x K with 2 N / K of
its weights.
"""

import torch
from torch import Tensor, nn

from ..reparam import fold_parallel
from .depthwise import DepthwiseConv2d
from .dilated_reparam import ConvBranch


class StripReparamBlock(nn.Module):
    """Sum of a K x N, an N x K and an N x N depthwise convolution, each with its batch norm.

    Args:
        channels: C.
        kernel_size: K, odd.
        strip_width: N, odd, at most K.
        dilation: of all three convolutions.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        strip_width: int = 5,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        K, N = kernel_size, strip_width
        self.dilation = dilation
        self.vertical = ConvBranch(channels, (K, N), dilation, **dd)
        self.horizontal = ConvBranch(channels, (N, K), dilation, **dd)
        self.small = ConvBranch(channels, (N, N), dilation, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return self.vertical(x) + self.horizontal(x) + self.small(x)

    @torch.no_grad()
    def fuse(self) -> "StripPair":
        """Two strips; the small kernel is added to the vertical one.

        They are not fused into one K x K kernel, most of whose weights would be zero: it would
        take K / (2 N) times the multiply-adds.
        """
        d = self.dilation
        vertical = fold_parallel([self.vertical.folded(d), self.small.folded(d)])
        return StripPair(
            DepthwiseConv2d.of(*vertical, d),
            DepthwiseConv2d.of(*self.horizontal.folded(d), d),
        )


class StripPair(nn.Module):
    """Sum of two depthwise convolutions: a fused StripReparamBlock.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, vertical: DepthwiseConv2d, horizontal: DepthwiseConv2d):
        super().__init__()
        self.vertical = vertical
        self.horizontal = horizontal

    def forward(self, x: Tensor) -> Tensor:
        return self.vertical(x) + self.horizontal(x)
