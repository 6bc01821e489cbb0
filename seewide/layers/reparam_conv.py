"""A depthwise convolution beside a smaller one, each with its batch norm; any stride.

RepLKNet (arXiv 2203.06717, section 3, guideline 3) re-parameterizes the depthwise layers of other
networks in this way.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ..errors import InputError
from ..reparam import center_pad, fold_batch_norm, fold_parallel
from .depthwise import DepthwiseConv2d


def depthwise(weight: Tensor, bias: Tensor | None, stride: tuple[int, ...]) -> nn.Conv2d:
    """The depthwise layer with this kernel (C, 1, kh, kw) and same padding."""
    if stride == (1, 1):
        return DepthwiseConv2d.of(weight, bias)
    C, _, kh, kw = weight.shape
    dd: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
    padding, strides = (kh // 2, kw // 2), (stride[0], stride[1])
    conv = nn.Conv2d(C, C, (kh, kw), strides, padding, groups=C, bias=bias is not None, **dd)
    conv.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        conv.bias = nn.Parameter(bias.detach().clone())
    return conv


def grown(conv: nn.Conv2d, kernel_size: int) -> nn.Conv2d:
    """The depthwise layer with a larger kernel, padded with zeros, that computes the same."""
    if kernel_size % 2 == 0:
        raise InputError(f"kernel_size must be odd, got {kernel_size}")
    kernel = center_pad(conv.weight.detach(), (kernel_size, kernel_size))
    return depthwise(kernel, conv.bias, conv.stride)


class ReparamConv(nn.Module):
    """Sum of a large and a small depthwise convolution, each followed by a batch norm.

    Args:
        large, small: depthwise layers without bias, of the same channels and stride.

    Shape: (N, C, H, W) -> (N, C, ceil(H / stride), ceil(W / stride))
    """

    def __init__(self, large: nn.Conv2d, small: nn.Conv2d):
        super().__init__()
        dd: dict[str, Any] = {"device": large.weight.device, "dtype": large.weight.dtype}
        self.large, self.small = large, small
        self.large_norm = nn.BatchNorm2d(large.out_channels, **dd)
        self.small_norm = nn.BatchNorm2d(small.out_channels, **dd)

    @classmethod
    @torch.no_grad()
    def of(cls, conv: nn.Conv2d, kernel_size: int, small_kernel: int) -> "ReparamConv":
        """The block that computes what `conv` does in evaluation, one half of it in each branch.

        The output of a branch of zeros would have no variance for the batch norm to divide by.
        """
        if small_kernel % 2 == 0 or not max(conv.kernel_size) <= small_kernel < kernel_size:
            raise InputError(
                f"small_kernel must be odd, at least {max(conv.kernel_size)} as the layer it "
                f"replaces and below {kernel_size=}, got {small_kernel}"
            )
        halves = [grown(conv, size) for size in (kernel_size, small_kernel)]
        for half in halves:
            half.weight.mul_(0.5)
            half.bias = None
        block = cls(*halves)
        for norm in (block.large_norm, block.small_norm):
            assert norm.running_var is not None  # the norm of `__init__` tracks it
            norm.running_var.fill_(1 - norm.eps)  # plus eps, this is one
        if conv.bias is not None:
            block.large_norm.bias.copy_(conv.bias)
        return block

    def forward(self, x: Tensor) -> Tensor:
        return self.large_norm(self.large(x)) + self.small_norm(self.small(x))

    @torch.no_grad()
    def fuse(self) -> nn.Conv2d:
        """The one convolution that computes the same in evaluation."""
        branches = [
            fold_batch_norm(self.large.weight, None, self.large_norm),
            fold_batch_norm(self.small.weight, None, self.small_norm),
        ]
        return depthwise(*fold_parallel(branches), self.large.stride)
