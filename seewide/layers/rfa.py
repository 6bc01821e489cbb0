"""Receptive Field Aggregator: a pyramid of moderately large kernels.

UniConvNet (arXiv 2508.09000, section 3): instead of one very large kernel, layers of growing ones,
each over what the layers before it gathered and one more part of the channels, so that the centre
is seen most often and the receptive field stays Gaussian as it grows. Written from facts about the
authors' code, which trained the published weights.

The normalized channels are split into N + 1 parts s_0, ..., s_N. Layer i, of kernel K_i, has
y = s_0 (i = 1) or y = norm(y_{i-1}), and computes

    a   = dw K_i (gelu (1x1 y))            the context of what is known
    y_i = [dw 3x3 (1x1 s_i) + 1x1 a,       the next part, told of the context (i = 1: + a)
           1x1 (a * 1x1 y)]                what is known, amplified by it

Legend: N batch, C channels, H x W map.
"""

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..errors import InputError
from .depthwise import DepthwiseConv2d


def fold_scale(layer: nn.Conv2d | nn.Linear, scale: Tensor) -> None:
    """Multiply the output channels of `layer` by `scale` (C_out,), in its weights."""
    with torch.no_grad():
        layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.mul_(scale)


class AggregatorLayer(nn.Module):
    """Layer Operator: one layer of the pyramid.

    Args:
        dim: channels gathered so far.
        new_dim: channels of the part that joins.
        kernel_size: of the context, odd.
        first: the layer whose input the aggregator has just normalized, and whose context joins
            the new part without a projection, having as many channels.

    Shape: (N, dim, H, W), (N, new_dim, H, W) -> (N, new_dim + dim, H, W)
    """

    def __init__(
        self,
        dim: int,
        new_dim: int,
        kernel_size: int,
        first: bool = False,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.norm = nn.Identity() if first else LayerNorm2d(dim, **dd)
        self.context = nn.Sequential(
            nn.Conv2d(dim, dim, 1, **dd), nn.GELU(), DepthwiseConv2d(dim, kernel_size, **dd)
        )
        self.value = nn.Conv2d(dim, dim, 1, **dd)
        self.amplified = nn.Conv2d(dim, dim, 1, **dd)
        self.new = nn.Sequential(
            nn.Conv2d(new_dim, new_dim, 1, **dd), DepthwiseConv2d(new_dim, 3, **dd)
        )
        self.told = nn.Identity() if first else nn.Conv2d(dim, new_dim, 1, **dd)

    def forward(self, known: Tensor, part: Tensor) -> Tensor:
        known = self.norm(known)
        context = self.context(known)
        part = self.new(part) + self.told(context)
        return torch.cat([part, self.amplified(context * self.value(known))], dim=1)


class ReceptiveFieldAggregator(nn.Module):
    """Norm, split, and a layer per kernel size.

    Args:
        dim: C, at least one channel for each of the `len(kernel_sizes) + 1` parts.
        kernel_sizes: of the layers' contexts, odd, two at least; the authors' are 7, 9, 11.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: fewer than two kernel sizes, an even one, or too few channels.
    """

    def __init__(
        self, dim: int, kernel_sizes: tuple[int, ...] = (7, 9, 11), device=None, dtype=None
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        count = len(kernel_sizes) + 1
        if count < 3 or dim < count:
            raise InputError(
                "an aggregator needs two kernel sizes or more, and one channel more than kernel "
                f"sizes, got {kernel_sizes=} and {dim=}"
            )
        self.parts = [dim // count] * count
        self.parts[-1] += dim % count  # four layers of the authors' widths leave a remainder
        self.norm = LayerNorm2d(dim, **dd)
        self.layers = nn.ModuleList(
            AggregatorLayer(sum(self.parts[: i + 1]), self.parts[i + 1], size, first=i == 0, **dd)
            for i, size in enumerate(kernel_sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.norm(x).split(self.parts, dim=1)
        known = parts[0]
        for i, layer in enumerate(self.layers):
            known = layer(known, parts[i + 1])
        return known

    def fold_scale(self, scale: Tensor) -> None:
        """Multiply the output channels by `scale` (C,), in the weights of the last layer."""
        last = self.layers[-1]
        part, known = scale.split([self.parts[-1], scale.numel() - self.parts[-1]])
        fold_scale(last.new[1], part)
        fold_scale(last.told, part)
        fold_scale(last.amplified, known)
