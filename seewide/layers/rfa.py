"""Receptive Field Aggregator: a pyramid of moderately large kernels.

UniConvNet (arXiv 2508.09000, section 3): instead of one very large kernel, layers with growing
kernels, each applied to the output of the layers before it, joined by one more part of the
channels, so that the effective receptive field grows and stays Gaussian. Written from facts about
the authors' code, with which the published weights were trained.

The normalized channels are split into N + 1 parts s_0, ..., s_N. Layer i, with kernel size K_i, has
the input y = s_0 (i = 1) or y = norm(y_{i-1}), and computes

    a   = dw K_i (gelu (1x1 y))            context
    y_i = [dw 3x3 (1x1 s_i) + 1x1 a,       the new part with the context (i = 1: + a)
           1x1 (a * 1x1 y)]                the input modulated by the context
"""

from typing import Any

import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..errors import InputError
from .depthwise import DepthwiseConv2d

# Old names of parameters and the present ones.
RENAMED = {"told": "context_proj", "amplified": "product_proj", "new": "part_conv"}


def scale_outputs(layer: nn.Conv2d | nn.Linear, scale: Tensor) -> None:
    """Multiply the output channels of `layer` by `scale` (C_out,), in its weights."""
    with torch.no_grad():
        layer.weight.mul_(scale.reshape(-1, *[1] * (layer.weight.ndim - 1)))
        if layer.bias is not None:
            layer.bias.mul_(scale)


class AggregatorLayer(nn.Module):
    """Layer Operator: one layer of the pyramid.

    Args:
        dim: channels of the input, the output of the layer before.
        part_dim: channels of the part that this layer adds.
        kernel_size: of the context, odd.
        first: whether this is the first layer: its input is normalized already, and its context
            has as many channels as the new part and is added without a projection.
        dilation: of both depthwise convolutions.

    Shape: (N, dim, H, W), (N, part_dim, H, W) -> (N, part_dim + dim, H, W)
    """

    def __init__(
        self,
        dim: int,
        part_dim: int,
        kernel_size: int,
        first: bool = False,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.norm = nn.Identity() if first else LayerNorm2d(dim, **dd)
        self.context = nn.Sequential(
            nn.Conv2d(dim, dim, 1, **dd),
            nn.GELU(),
            DepthwiseConv2d(dim, kernel_size, dilation, **dd),
        )
        self.value = nn.Conv2d(dim, dim, 1, **dd)
        self.product_proj = nn.Conv2d(dim, dim, 1, **dd)
        self.part_conv = nn.Sequential(
            nn.Conv2d(part_dim, part_dim, 1, **dd), DepthwiseConv2d(part_dim, 3, dilation, **dd)
        )
        self.context_proj = nn.Identity() if first else nn.Conv2d(dim, part_dim, 1, **dd)

    def forward(self, x: Tensor, part: Tensor) -> Tensor:
        x = self.norm(x)
        context = self.context(x)
        part = self.part_conv(part) + self.context_proj(context)
        return torch.cat([part, self.product_proj(context * self.value(x))], dim=1)

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args) -> None:
        """Also accept the old names."""
        for old, new in RENAMED.items():
            for key in [k for k in state_dict if k.startswith(f"{prefix}{old}.")]:
                state_dict[key.replace(f"{prefix}{old}.", f"{prefix}{new}.", 1)] = state_dict.pop(
                    key
                )
        super()._load_from_state_dict(state_dict, prefix, *args)


class ReceptiveFieldAggregator(nn.Module):
    """Norm, split, and one layer per kernel size.

    Args:
        dim: C, at least one channel for each of the `len(kernel_sizes) + 1` parts.
        kernel_sizes: of the layers' contexts, odd, at least two; the authors' are 7, 9, 11.
        dilation: of all depthwise convolutions.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: fewer than two kernel sizes, an even one, or too few channels.
    """

    def __init__(
        self,
        dim: int,
        kernel_sizes: tuple[int, ...] = (7, 9, 11),
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        count = len(kernel_sizes) + 1
        if count < 3 or dim < count:
            raise InputError(
                "an aggregator needs at least two kernel sizes, and one channel more than kernel "
                f"sizes, got {kernel_sizes=} and {dim=}"
            )
        self.parts = [dim // count] * count
        self.parts[-1] += dim % count  # with four layers the authors' widths leave a remainder
        self.norm = LayerNorm2d(dim, **dd)
        self.layers = nn.ModuleList(
            AggregatorLayer(
                sum(self.parts[: i + 1]), self.parts[i + 1], size, i == 0, dilation, **dd
            )
            for i, size in enumerate(kernel_sizes)
        )

    def forward(self, x: Tensor) -> Tensor:
        parts = self.norm(x).split(self.parts, dim=1)
        y = parts[0]
        for i, layer in enumerate(self.layers):
            y = layer(y, parts[i + 1])
        return y

    def scale_outputs(self, scale: Tensor) -> None:
        """Multiply the output channels by `scale` (C,), in the weights of the last layer."""
        last: Any = self.layers[-1]
        part, product = scale.split([self.parts[-1], scale.numel() - self.parts[-1]])
        scale_outputs(last.part_conv[1], part)
        scale_outputs(last.context_proj, part)
        scale_outputs(last.product_proj, product)
