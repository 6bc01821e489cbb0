"""`seewide.ops.peripheral_conv2d` as layers: plain, re-parameterized, and on part of the channels.

PeLK (arXiv 2403.07589). The paper does not say how the small re-parameterized kernel and the
positional embedding interact. Here both kernels are applied to the same embedded input, the small
one with the centre of the embedding, so that the block can be fused exactly for any embedding.
"""

from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function

from ..errors import InputError
from ..ops import depthwise_conv2d
from ..ops._dispatch import in_transform
from ..ops.peripheral import expand_weight, peripheral_conv2d, position_map
from ..reparam import center_pad, fold_batch_norm
from .layout import channels_last_on_cpu
from .phases import from_phases, to_phases


class PeripheralConv2d(nn.Module):
    """Depthwise convolution whose weights are shared on a grid.

    Args:
        channels: C.
        grid: k cell sizes, sum K; see `seewide.ops.sharing_grid`.
        bias: whether there is a bias per channel.
        pos_mode: where a positional embedding is added; see `seewide.ops.peripheral_conv2d`.
        dilation: distance between neighbouring taps, in pixels.

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)
    """

    def __init__(
        self,
        channels: int,
        grid: list[int],
        bias: bool = True,
        pos_mode: str = "valid",
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.grid = list(grid)
        self.pos_mode = pos_mode
        self.dilation = dilation
        self.weight = nn.Parameter(torch.empty(channels, len(grid), len(grid), **dd))
        self.bias = nn.Parameter(torch.empty(channels, **dd)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal weights of standard deviation 0.02, as in ConvNeXt; zero bias."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        if self.dilation == 1:
            return peripheral_conv2d(x, self.weight, self.grid, self.bias, pos_embed, self.pos_mode)
        return self._dilated(x, pos_embed)

    def _dilated(self, x: Tensor, pos_embed: Tensor | None) -> Tensor:
        """The undilated operator on phases; what a "valid" embedding adds comes from ones."""
        H, W, d = x.shape[2], x.shape[3], self.dilation
        valid = self.pos_mode == "valid"
        everywhere = None if valid else pos_embed
        y = peripheral_conv2d(
            to_phases(x, d), self.weight, self.grid, self.bias, everywhere, self.pos_mode
        )
        y = from_phases(y, d, H, W)
        if pos_embed is not None and valid:
            kernel = expand_weight(self.weight, self.grid) * pos_embed
            ones = torch.ones(1, kernel.shape[0], H, W, dtype=kernel.dtype, device=kernel.device)
            y = y + depthwise_conv2d(ones, kernel.unsqueeze(1), None, d).to(y.dtype)
        return y

    def extra_repr(self) -> str:
        dilation = f", dilation={self.dilation}" if self.dilation > 1 else ""
        return f"{self.weight.shape[0]}, grid={self.grid}, pos_mode={self.pos_mode!r}{dilation}"


class FusedPeripheralConv2d(PeripheralConv2d):
    """A fused block: caches what the embedding adds, which depends on the weights and H, W only.

    Computing it takes 5 to 8% of PeLK-T's time at batch 1. The cached map is computed again for
    another size, and when the weight or the embedding was replaced or modified in place.

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)
    """

    _cache: tuple[Any, Any] = (None, None)  # what the map was computed from, the map

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor, grid: list[int], pos_mode: str, dilation: int = 1
    ) -> "FusedPeripheralConv2d":
        """The layer with this weight (C, k, k) and bias (C,)."""
        dd: dict[str, Any] = {"device": weight.device, "dtype": weight.dtype}
        layer = cls(weight.shape[0], grid, pos_mode=pos_mode, dilation=dilation, **dd)
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        return layer

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        if self.dilation > 1:
            return self._dilated(x, pos_embed)
        if torch.jit.is_scripting() or pos_embed is None or not self._can_cache(x, pos_embed):
            return peripheral_conv2d(x, self.weight, self.grid, self.bias, pos_embed, self.pos_mode)
        else:
            y = peripheral_conv2d(x, self.weight, self.grid, self.bias)
            return y + self._position_map(pos_embed, x.shape[2], x.shape[3]).to(y.dtype)

    @torch.jit.unused
    def _can_cache(self, x: Tensor, pos_embed: Tensor | None) -> bool:
        """Whether this call computes values, without gradients, from tensors with a version."""
        return not (
            pos_embed is None
            or self.pos_mode != "valid"
            or torch.is_grad_enabled()
            or torch.compiler.is_compiling()
            or torch.jit.is_tracing()
            or in_transform()
            or has_torch_function((x,))
            or self.weight.is_inference()
            or pos_embed.is_inference()
        )

    @torch.jit.unused
    def _position_map(self, pos_embed: Tensor, H: int, W: int) -> Tensor:
        state = [(t.data_ptr(), t._version, t.dtype) for t in (self.weight, pos_embed)]
        key, cached = self._cache
        if key != (state, H, W):
            cached = position_map(expand_weight(self.weight, self.grid), pos_embed, H, W)
            self._cache = ((state, H, W), cached)
        return cached


class PeripheralBranch(nn.Module):
    """Peripheral convolution and batch norm: one branch of a re-parameterized block.

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)
    """

    def __init__(
        self,
        channels: int,
        grid: list[int],
        pos_mode: str,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        self.conv = PeripheralConv2d(channels, grid, False, pos_mode, dilation, **dd)
        self.norm = nn.BatchNorm2d(channels, **dd)

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        return self.norm(self.conv(x, pos_embed))

    def folded(self) -> tuple[Tensor, Tensor]:
        """Weight (C, k, k) and bias (C,) that compute the same."""
        return fold_batch_norm(self.conv.weight, None, self.norm)


class PeripheralReparamBlock(nn.Module):
    """Sum of a peripheral convolution and a small dense one, each with its batch norm.

    Args:
        channels: C.
        grid: of the peripheral convolution.
        small_kernel: size of the dense one, odd; 0 for none.
        pos_mode: where a positional embedding is added.
        dilation: of both kernels.

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)

    Raises:
        InputError: an even small kernel, or one larger than the grid.
    """

    def __init__(
        self,
        channels: int,
        grid: list[int],
        small_kernel: int = 5,
        pos_mode: str = "valid",
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        if small_kernel and (small_kernel % 2 == 0 or small_kernel > sum(grid)):
            raise InputError(
                f"small_kernel must be odd and at most {sum(grid)}, the size of the grid, or 0 "
                f"for none; got {small_kernel}"
            )
        self.large = PeripheralBranch(channels, grid, pos_mode, dilation, **dd)
        self.small = None
        if small_kernel:
            self.small = PeripheralBranch(channels, [1] * small_kernel, pos_mode, dilation, **dd)

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        y = self.large(x, pos_embed)
        if self.small is not None:
            center = pos_embed
            if pos_embed is not None:
                size = len(self.small.conv.grid)
                start = (pos_embed.shape[1] - size) // 2
                center = pos_embed[:, start : start + size, start : start + size]
            y = y + self.small(x, center)
        return y

    @torch.no_grad()
    def fuse(self) -> FusedPeripheralConv2d:
        """The one peripheral convolution that computes the same in evaluation.

        Its grid is finer if the small kernel overlaps larger cells.
        """
        conv = self.large.conv
        grid, (weight, bias) = conv.grid, self.large.folded()
        if self.small is not None:
            small_weight, small_bias = self.small.folded()
            grid, cells = refine(grid, small_weight.shape[-1])
            index = torch.tensor(cells, device=weight.device)
            weight = weight.index_select(1, index).index_select(2, index)
            weight = weight + center_pad(small_weight, (len(grid), len(grid)))
            bias = bias + small_bias
        return FusedPeripheralConv2d.of(weight, bias, grid, conv.pos_mode, conv.dilation)


def refine(grid: list[int], center: int) -> tuple[list[int], list[int]]:
    """The coarsest refinement of `grid` with `center` cells of 1 in the middle.

    Returns:
        its cell sizes, and for each of its cells the index of the cell of `grid` it is part of.

    Example:
        >>> refine([3, 2, 1, 2, 3], 5)
        ([3, 1, 1, 1, 1, 1, 3], [0, 1, 1, 2, 3, 3, 4])
    """
    K = sum(grid)
    first = (K - center) // 2
    ends = [sum(grid[: cell + 1]) for cell in range(len(grid))]
    edges = sorted({0, *ends, *range(first, first + center + 1)})
    fine = [after - before for before, after in pairwise(edges)]
    cells = [next(c for c, end in enumerate(ends) if start < end) for start in edges[:-1]]
    return fine, cells


class PartialMixer(nn.Module):
    """A mixer for the first channels, the identity for the others (PeLK, section 4.1).

    Args:
        mixer: takes (x, pos_embed), x of `channels` channels.
        channels: number of channels that it mixes, the first ones.

    Shape: (N, C, H, W), and optionally an embedding (channels, K, K) -> (N, C, H, W)
    """

    def __init__(self, mixer: nn.Module, channels: int):
        super().__init__()
        self.mixer = mixer
        self.channels = channels

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        # The slice is not contiguous in either layout; the copy is in that of the network.
        mixed = self.mixer(channels_last_on_cpu(x[:, : self.channels]), pos_embed)
        return torch.cat([mixed, x[:, self.channels :]], dim=1)
