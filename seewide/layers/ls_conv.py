"""LS convolution: see large, focus small. LSNet (arXiv 2503.23135), section 3.2.

A large static kernel perceives the surroundings of each pixel, and from what it sees decides the
small kernel with which that pixel's neighbours are aggregated. Where paper and code differ, here
is the code: a group norm on the generated weights, a batch norm after the aggregation, and the
identity beside it, all inside the layer.

Legend: N batch, C channels, H x W map, G = C / group_width sets of weights.
"""

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..ops import small_kernel_aggregation
from ..reparam import batch_norm_affine, fold_parallel
from .conv_norm import ConvNorm
from .depthwise import DepthwiseConv2d
from .dilated_reparam import ConvBranch


class DepthwiseConvNorm(ConvBranch):
    """Depthwise convolution and batch norm, a layer of its own.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, channels: int, kernel_size: int, device=None, dtype=None):
        super().__init__(channels, kernel_size, dilation=1, device=device, dtype=dtype)

    @torch.no_grad()
    def fuse(self) -> DepthwiseConv2d:
        """The one convolution that computes the same in evaluation."""
        return DepthwiseConv2d.of(*self.folded())


class RepDepthwise(nn.Module):
    """Depthwise 3x3 beside depthwise 1x1 beside the identity, as in RepVGG (arXiv 2101.03697).

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, channels: int, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.square = ConvBranch(channels, 3, dilation=1, **dd)
        self.point = ConvBranch(channels, 1, dilation=1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.point(x) + x

    @torch.no_grad()
    def fuse(self) -> DepthwiseConv2d:
        """The one 3x3 convolution that computes the same in evaluation."""
        kernel, bias = self.point.folded()
        identity = torch.ones_like(kernel), torch.zeros_like(bias)
        return DepthwiseConv2d.of(*fold_parallel([self.square.folded(), (kernel, bias), identity]))


class LargeKernelPerception(nn.Module):
    """LKP: what surrounds each pixel, in half as many channels.

    Args:
        dim: C, even.
        kernel_size: K_L of the paper; 0 for a perception that sees each pixel alone.

    Shape: (N, C, H, W) -> (N, C / 2, H, W)
    """

    def __init__(self, dim: int, kernel_size: int = 7, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.reduce = ConvNorm(dim, dim // 2, **dd)
        self.act1 = nn.ReLU()
        self.dw = DepthwiseConvNorm(dim // 2, kernel_size, **dd) if kernel_size else nn.Identity()
        self.mix = ConvNorm(dim // 2, dim // 2, **dd)
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.mix(self.dw(self.act1(self.reduce(x)))))


class LSConv(nn.Module):
    """x + BN(SKA(x, weights that LKP decides on)).

    Args:
        dim: C, even.
        large_kernel: K_L, the kernel that perceives; 0 for none.
        small_kernel: K_S, the kernel that aggregates, odd.
        group_width: how many channels share each set of weights; divides C.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: a group width that does not divide C, or an even kernel.
    """

    def __init__(
        self,
        dim: int,
        large_kernel: int = 7,
        small_kernel: int = 3,
        group_width: int = 8,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if group_width < 1 or dim % group_width:
            raise InputError(f"group_width must divide {dim=}, got {group_width=}")
        if small_kernel % 2 == 0 or small_kernel < 1:
            raise InputError(f"small_kernel must be odd, got {small_kernel=}")
        dd = {"device": device, "dtype": dtype}
        sets, taps = dim // group_width, small_kernel**2
        self.sets = sets
        self.lkp = LargeKernelPerception(dim, large_kernel, **dd)
        self.to_weight = nn.Conv2d(dim // 2, sets * taps, 1, **dd)
        self.weight_norm = nn.GroupNorm(sets, sets * taps, **dd)
        self.norm = nn.BatchNorm2d(dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_norm(self.to_weight(self.lkp(x))).unflatten(1, (self.sets, -1))
        return x + self.norm(small_kernel_aggregation(x, weight))

    @torch.no_grad()
    def fuse(self) -> "FusedLSConv":
        """The same layer without its batch norm."""
        return FusedLSConv(
            self.lkp, self.to_weight, self.weight_norm, *batch_norm_affine(self.norm)
        )


class FusedLSConv(nn.Module):
    """Inference form: the batch norm is a scale and a shift.

    Channels that share weights have scales of their own, so these cannot move into the weights.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        lkp: LargeKernelPerception,
        to_weight: nn.Conv2d,
        weight_norm: nn.GroupNorm,
        scale: Tensor,
        shift: Tensor,
    ):
        super().__init__()
        self.sets = weight_norm.num_groups
        self.lkp = lkp
        self.to_weight = to_weight
        self.weight_norm = weight_norm
        self.scale = nn.Parameter(scale[:, None, None].detach().clone())
        self.shift = nn.Parameter(shift[:, None, None].detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_norm(self.to_weight(self.lkp(x))).unflatten(1, (self.sets, -1))
        y = small_kernel_aggregation(x, weight)
        return torch.addcmul(x + self.shift, y, self.scale)
