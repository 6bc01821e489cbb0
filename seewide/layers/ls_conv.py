"""LS convolution: see large, focus small. LSNet (arXiv 2503.23135), section 3.2.

Large-kernel perception (LKP), a static large-kernel branch, looks at the surroundings of each
pixel and predicts the small kernel with which small-kernel aggregation (SKA) sums that pixel's
neighbours. Where paper and code disagree, the authors' code is followed: a group norm on the
predicted weights, a batch norm after the aggregation, and a residual connection, all inside the
layer.

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
from .phases import from_phases, to_phases


class DepthwiseConvNorm(ConvBranch):
    """Depthwise convolution and batch norm as a layer of its own.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    @torch.no_grad()
    def fuse(self) -> DepthwiseConv2d:
        """The one convolution that computes the same in evaluation."""
        dilation = self.conv.dilation[0]
        return DepthwiseConv2d.of(*self.folded(dilation), dilation)


class RepDepthwise(nn.Module):
    """Depthwise 3x3 beside depthwise 1x1 beside the identity, as in RepVGG (arXiv 2101.03697).

    Args:
        channels: C.
        dilation: of the 3x3 convolution.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, channels: int, dilation: int = 1, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.square = ConvBranch(channels, 3, dilation, **dd)
        self.point = ConvBranch(channels, 1, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return self.square(x) + self.point(x) + x

    @torch.no_grad()
    def fuse(self) -> DepthwiseConv2d:
        """The one 3x3 convolution that computes the same in evaluation."""
        dilation = self.square.conv.dilation[0]
        kernel, bias = self.point.folded()
        identity = torch.ones_like(kernel), torch.zeros_like(bias)
        branches = [self.square.folded(dilation), (kernel, bias), identity]
        return DepthwiseConv2d.of(*fold_parallel(branches), dilation)


class LargeKernelPerception(nn.Module):
    """LKP: context around each pixel, in half as many channels.

    Args:
        dim: C, even.
        kernel_size: K_L of the paper; 0 for none, so that each pixel has itself as context.
        dilation: of the large kernel.
        stride: of the large kernel; with a stride there must be a kernel, and no dilation.

    Shape: (N, C, H, W) -> (N, C / 2, ceil(H / stride), ceil(W / stride))
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        dilation: int = 1,
        stride: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        hidden = dim // 2
        self.reduce = ConvNorm(dim, hidden, **dd)
        self.act1 = nn.ReLU()
        self.dw: nn.Module = nn.Identity()
        if stride > 1:
            self.dw = ConvNorm(hidden, hidden, kernel_size, stride, hidden, **dd)
        elif kernel_size:
            self.dw = DepthwiseConvNorm(hidden, kernel_size, dilation, **dd)
        self.mix = ConvNorm(hidden, hidden, **dd)
        self.act2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.act2(self.mix(self.dw(self.act1(self.reduce(x)))))


def aggregate(x: Tensor, weight: Tensor, sets: int, dilation: int) -> Tensor:
    """Small-kernel aggregation with dilation, from flat weights.

    Shape: (N, C, H, W), (N, sets * k * k, H, W) -> (N, C, H, W)
    """
    H, W = x.shape[2], x.shape[3]
    weight = to_phases(weight, dilation).unflatten(1, (sets, -1))
    return from_phases(small_kernel_aggregation(to_phases(x, dilation), weight), dilation, H, W)


class LSConv(nn.Module):
    """x + BN(SKA(x, weights predicted by LKP)).

    Args:
        dim: C, even.
        large_kernel: K_L, size of the perception kernel; 0 for none.
        small_kernel: K_S, size of the aggregation kernel, odd.
        group_width: number of channels that share each set of weights; divides C.
        dilation: of both kernels.
        stride: 1, or 2 to replace a strided convolution: LKP's kernel has this stride, and SKA
            aggregates the average-pooled input.

    Shape: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))

    Raises:
        InputError: a group width that does not divide C, or an even kernel.
    """

    def __init__(
        self,
        dim: int,
        large_kernel: int = 7,
        small_kernel: int = 3,
        group_width: int = 8,
        dilation: int = 1,
        stride: int = 1,
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
        self.dilation = dilation
        self.pool = nn.Identity() if stride == 1 else nn.AvgPool2d(3, stride, 1)
        self.lkp = LargeKernelPerception(dim, large_kernel, dilation, stride, **dd)
        self.to_weight = nn.Conv2d(dim // 2, sets * taps, 1, **dd)
        self.weight_norm = nn.GroupNorm(sets, sets * taps, **dd)
        self.norm = nn.BatchNorm2d(dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_norm(self.to_weight(self.lkp(x)))
        x = self.pool(x)
        return x + self.norm(aggregate(x, weight, self.sets, self.dilation))

    @torch.no_grad()
    def fuse(self) -> "FusedLSConv":
        """The same layer with the batch norm as a scale and a shift."""
        return FusedLSConv(self)


class FusedLSConv(nn.Module):
    """An LSConv whose batch norm is a scale and a shift.

    Channels that share weights have different scales, so these cannot be fused into the weights.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, layer: LSConv):
        super().__init__()
        self.sets = layer.sets
        self.dilation = layer.dilation
        self.pool = layer.pool
        self.lkp = layer.lkp
        self.to_weight = layer.to_weight
        self.weight_norm = layer.weight_norm
        scale, shift = batch_norm_affine(layer.norm)
        self.scale = nn.Parameter(scale[:, None, None].detach().clone())
        self.shift = nn.Parameter(shift[:, None, None].detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight_norm(self.to_weight(self.lkp(x)))
        x = self.pool(x)
        y = aggregate(x, weight, self.sets, self.dilation)
        return torch.addcmul(x + self.shift, y, self.scale)


class StaticAggregation(nn.Module):
    """LS convolution without SKA: x + BN(DW(conv 1x1(LKP(x)))).

    A static depthwise kernel of K_S x K_S replaces the predicted one and is applied to
    LKP's output (LSNet's ablation of SKA).

    Args:
        dim: C, even.
        large_kernel: K_L, size of the perception kernel; 0 for none.
        small_kernel: K_S, size of the static kernel, odd.
        dilation: of both kernels.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        dim: int,
        large_kernel: int = 7,
        small_kernel: int = 3,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.lkp = LargeKernelPerception(dim, large_kernel, dilation, **dd)
        self.expand = nn.Conv2d(dim // 2, dim, 1, **dd)
        self.dw = DepthwiseConvNorm(dim, small_kernel, dilation, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.dw(self.expand(self.lkp(x)))
