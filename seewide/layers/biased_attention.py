"""Attention over the pixels of a small map, with a learnt bias per relative position.

LeViT (arXiv 2104.01136), section 4.4, as LSNet (2503.23135) uses it in its last stage: queries
and keys of few channels, a depthwise convolution on the queries, a bias per head that depends on
|dy| and |dx|. Unlike timm's layers of this kind, the map may have any size: the table of biases
is resized to it.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError
from .conv_norm import ConvNorm
from .ls_conv import DepthwiseConvNorm


def resize_biases(table: Tensor, old: tuple[int, int], new: tuple[int, int]) -> Tensor:
    """A table (heads, h * w) of biases for distances 0 .. h - 1 and 0 .. w - 1, at a new size.

    Linear between the entries; distance 0 stays distance 0, and the farthest the farthest.
    """
    if old == new:
        return table
    grid = table.unflatten(1, [old[0], old[1]])[None]
    grid = F.interpolate(grid, [new[0], new[1]], mode="bilinear", align_corners=True)
    return grid[0].flatten(1)


def relative_biases(table: Tensor, size: tuple[int, int], x: Tensor) -> Tensor:
    """The bias between any two pixels of x (N, C, H, W): (heads, H * W, H * W).

    Computed at each call, so that no copy can go stale when weights are loaded, converted or
    averaged: 0.03 ms for each of LSNet-T's five layers, 0.1% of its time at batch 1 on a CPU.
    """
    if not torch.jit.is_scripting() and has_torch_function((table, x)):
        return handle_torch_function(relative_biases, (table, x), table, size, x)
    H, W = x.shape[2], x.shape[3]
    return resize_biases(table, size, (H, W))[:, distance_index(H, W, x.device)]


def distance_index(height: int, width: int, device: torch.device) -> Tensor:
    """Where in a table of a map of that size the distance of any two of its pixels is:
    |dy| * width + |dx|, (height * width, height * width)."""
    rows = torch.arange(height, device=device)
    columns = torch.arange(width, device=device)
    dy = (rows[:, None] - rows).abs()[:, None, :, None]
    dx = (columns[:, None] - columns).abs()[None, :, None, :]
    return (dy * width + dx).reshape(height * width, height * width)


class BiasedAttention(nn.Module):
    """proj(relu(softmax(q k / sqrt(key_dim) + bias) v)), q after a depthwise 3x3 convolution.

    Args:
        dim: C.
        num_heads: heads; divides C, and each has C / num_heads channels of values.
        key_dim: channels of the queries and keys of a head.
        resolution: (height, width) of the map the biases are stored for.

    Shape: (N, C, H, W) -> (N, C, H, W), any H and W
    """

    def __init__(
        self,
        dim: int,
        num_heads: int,
        key_dim: int = 16,
        resolution: tuple[int, int] = (4, 4),
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
        self.dw = DepthwiseConvNorm(num_heads * key_dim, 3, **dd)
        self.act = nn.ReLU()
        self.proj = ConvNorm(dim, dim, **dd)
        nn.init.zeros_(self.proj.norm.weight)  # with the identity beside it, starts as nothing
        self.attention_biases = nn.Parameter(
            torch.zeros(num_heads, resolution[0] * resolution[1], **dd)
        )

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
        table = self.attention_biases
        with torch.no_grad():
            resized = resize_biases(table, self.resolution, resolution)
        self.attention_biases = nn.Parameter(resized, requires_grad=table.requires_grad)
        self.resolution = resolution
