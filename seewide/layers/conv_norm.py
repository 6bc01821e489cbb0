"""Convolution and batch norm, which fuse into one convolution.

timm has such pairs (repvit, levit), but their `fuse()` returns float32 whatever the dtype of the
weights, and none has a batch norm on both sides.
"""

import copy

import torch
from torch import Tensor, nn

from ..reparam import batch_norm_affine, fold_batch_norm
from .pointwise import PointwiseConv2d


class ConvNorm(nn.Module):
    """Convolution without bias, odd kernel, same padding; then batch norm.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: odd.
        stride: of the convolution.
        groups: of the convolution.
        dilation: distance between neighbouring taps, in pixels.

    Shape: (N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int = 1,
        stride: int = 1,
        groups: int = 1,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.conv = nn.Conv2d(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding=kernel_size // 2 * dilation,
            dilation=dilation,
            groups=groups,
            bias=False,
            **dd,
        )
        self.norm = nn.BatchNorm2d(out_channels, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """The one convolution that computes the same in evaluation."""
        return _with_weights(self.conv, *fold_batch_norm(self.conv.weight, None, self.norm))


class NormConvNorm(ConvNorm):
    """Pointwise convolution between two batch norms.

    Both can be fused: without padding, the shift of the first norm adds the same constant to
    every output pixel.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int, device=None, dtype=None):
        super().__init__(in_channels, out_channels, device=device, dtype=dtype)
        self.norm0 = nn.BatchNorm2d(in_channels, device=device, dtype=dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(self.norm0(x)))

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """The one convolution that computes the same in evaluation."""
        scale, shift = batch_norm_affine(self.norm0)
        weight = self.conv.weight * scale[:, None, None]
        bias = self.conv.weight.flatten(1) @ shift
        return _with_weights(self.conv, *fold_batch_norm(weight, bias, self.norm))


def conv_norm_relu(
    in_channels: int,
    out_channels: int,
    kernel_size: int = 1,
    stride: int = 1,
    groups: int = 1,
    dilation: int = 1,
    **dd,
) -> list[nn.Module]:
    """A ConvNorm and its ReLU, the elements of an nn.Sequential."""
    conv = ConvNorm(in_channels, out_channels, kernel_size, stride, groups, dilation, **dd)
    return [conv, nn.ReLU()]


def _with_weights(conv: nn.Conv2d, weight: Tensor, bias: Tensor) -> nn.Conv2d:
    """A convolution of the same shape and stride, with these weights."""
    if conv.kernel_size == conv.stride == (1, 1) and conv.groups == 1:
        return PointwiseConv2d.of(weight, bias)
    conv = copy.deepcopy(conv)
    conv.weight, conv.bias = nn.Parameter(weight), nn.Parameter(bias)
    return conv
