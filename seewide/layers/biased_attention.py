"""Attention over the pixels of a small map, with a learned bias per relative position.

LeViT (arXiv 2104.01136), section 4.4, as LSNet (2503.23135) uses it in its last stage: queries
and keys with few channels, a depthwise convolution on the queries, and a bias per head that depends
on |dy| and |dx|. Unlike in timm's layers of this kind, the map may have any size: the table of
biases is resized to it.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError
from .conv_norm import ConvNorm
from .ls_conv import DepthwiseConvNorm


def resize_biases(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """Resize a table of biases for distances 0 .. h - 1 and 0 .. w - 1, (heads, h * w).

    Interpolation is linear and maps the smallest and largest distances onto each other.
    """
    if not torch.jit.is_scripting() and not _is_captured() and old == new:
        return table
    grid = table.unflatten(1, [old[0], old[1]])[None]
    grid = F.interpolate(grid, [new[0], new[1]], mode="bilinear", align_corners=True)
    return grid[0].flatten(1)


@torch.jit.unused
def _is_captured() -> bool:
    """Whether a graph is being captured, which must not depend on the size of this input."""
    return torch.jit.is_tracing() or torch.compiler.is_exporting()


def relative_biases(table: Tensor, size: tuple[int, int], x: Tensor) -> Tensor:
    """The bias between any two pixels of x (N, C, H, W): (heads, H * W, H * W).

    It is computed at each call instead of being cached, so that it always follows the weights when
    these are loaded, converted or averaged: 0.03 ms for each of LSNet-T's five layers, 0.1% of its
    time at batch 1 on a CPU.
    """
    if not torch.jit.is_scripting() and has_torch_function((table, x)):
        return handle_torch_function(relative_biases, (table, x), table, size, x)
    H, W = x.shape[2], x.shape[3]
    return resize_biases(table, size, (H, W))[:, distance_index(H, W, x.device)]


def distance_index(height: int, width: int, device: torch.device) -> Tensor:
    """Index into a table of biases for each pair of pixels: |dy| * width + |dx|.

    Returns:
        (height * width, height * width)
    """
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    dy = (rows[:, None] - rows).abs()[:, None, :, None]
    dx = (columns[:, None] - columns).abs()[None, :, None, :]
    return (dy * width + dx).reshape(height * width, height * width)


def store_resolution(layer: Any, resolution: tuple[int, int]) -> None:
    """Resize the `attention_biases` of a layer for maps of another size."""
    table = layer.attention_biases
    with torch.no_grad():
        resized = resize_biases(table, layer.resolution, resolution)
    layer.attention_biases = nn.Parameter(resized, requires_grad=table.requires_grad)
    layer.resolution = resolution


class BiasedAttention(nn.Module):
    """proj(relu(softmax(q k / sqrt(key_dim) + bias) v)), q after a depthwise 3x3 convolution.

    Args:
        dim: C.
        num_heads: number of heads; divides C, and each has C / num_heads channels of values.
        key_dim: channels of the queries and keys of a head.
        resolution: (height, width) of the map that the biases are stored for.
        dilation: of the depthwise convolution.

    Shape: (N, C, H, W) -> (N, C, H, W), any H and W

    Raises:
        InputError: a number of heads that does not divide C.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        key_dim: int = 16,
        resolution: tuple[int, int] = (4, 4),
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise InputError(f"num_heads must divide {dim=}, got {num_heads=}")
        dd = {"device": device, "dtype": dtype}
        self.num_heads = num_heads
        self.widths = [num_heads * key_dim, num_heads * key_dim, dim]
        self.resolution = resolution
        self.qkv = ConvNorm(dim, sum(self.widths), **dd)
        self.dw = DepthwiseConvNorm(num_heads * key_dim, 3, dilation, **dd)
        self.act = nn.ReLU()
        self.proj = ConvNorm(dim, dim, **dd)
        self.attention_biases = nn.Parameter(
            torch.empty(num_heads, resolution[0] * resolution[1], **dd)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero biases, and a zero weight of the last norm: a residual block starts as identity."""
        nn.init.zeros_(self.attention_biases)
        nn.init.zeros_(self.proj.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).split(self.widths, dim=1)
        q, k, v = self._heads(self.dw(q)), self._heads(k), self._heads(v)
        bias = self.biases(x)
        y = F.scaled_dot_product_attention(q, k, v, bias[None].to(q.dtype))
        return self.proj(self.act(y.transpose(2, 3).reshape(x.shape)))

    def biases(self, x: Tensor) -> Tensor:
        """The bias between any two pixels of x (N, C, H, W): (heads, H * W, H * W)."""
        return relative_biases(self.attention_biases, self.resolution, x)

    def _heads(self, x: Tensor) -> Tensor:
        """(N, heads * D, H, W) -> (N, heads, H * W, D)"""
        return x.unflatten(1, (self.num_heads, -1)).flatten(3).transpose(2, 3)

    @torch.jit.ignore
    def set_resolution(self, resolution: tuple[int, int]) -> None:
        """Store the biases for maps of another size."""
        store_resolution(self, resolution)
