"""`seewide.ops.peripheral_conv2d` as layers: plain, re-parameterized, and on part of the channels.

PeLK (arXiv 2403.07589). The paper leaves open how the small re-parameterized kernel and the
positional embedding meet; here both kernels read the same embedded input, the small one the centre
of the embedding. So the block merges exactly, whatever the embedding.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function

from ..errors import InputError
from ..ops._dispatch import in_transform
from ..ops.peripheral import expand_weight, peripheral_conv2d, position_map
from ..reparam import center_pad, fold_batch_norm
from .layout import channels_last_on_cpu


class PeripheralConv2d(nn.Module):
    """Depthwise convolution whose weights are shared on a grid.

    Args:
        channels: C.
        grid: k cell sizes, sum K; see `seewide.ops.sharing_grid`.
        pos_mode: where a positional embedding is added; see `seewide.ops.peripheral_conv2d`.

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)
    """

    def __init__(
        self,
        channels: int,
        grid: list[int],
        bias: bool = True,
        pos_mode: str = "valid",
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.grid = list(grid)
        self.pos_mode = pos_mode
        self.weight = nn.Parameter(torch.empty(channels, len(grid), len(grid), **dd))
        self.bias = nn.Parameter(torch.empty(channels, **dd)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal of 0.02, as the convolutions of ConvNeXt; no bias."""
        nn.init.trunc_normal_(self.weight, std=0.02)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        return peripheral_conv2d(x, self.weight, self.grid, self.bias, pos_embed, self.pos_mode)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, grid={self.grid}, pos_mode={self.pos_mode!r}"


class FusedPeripheralConv2d(PeripheralConv2d):
    """Inference form: keeps what the embedding adds, which depends on the weights and H, W alone.

    In PeLK-T at batch 1 that is 5 to 8% of the time. The kept map is made anew for another size,
    and when weight or embedding were changed in place or replaced.

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)
    """

    _kept = (None, None)  # what the map was made of, the map

    @classmethod
    def of(
        cls, weight: Tensor, bias: Tensor, grid: list[int], pos_mode: str
    ) -> "FusedPeripheralConv2d":
        """The layer with this weight (C, k, k) and bias (C,)."""
        layer = cls(
            weight.shape[0], grid, pos_mode=pos_mode, device=weight.device, dtype=weight.dtype
        )
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        return layer

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        if torch.jit.is_scripting() or not self._keeps(x, pos_embed):
            return peripheral_conv2d(x, self.weight, self.grid, self.bias, pos_embed, self.pos_mode)
        else:
            y = peripheral_conv2d(x, self.weight, self.grid, self.bias)
            return y + self._position_map(pos_embed, x.shape[2], x.shape[3]).to(y.dtype)

    @torch.jit.unused
    def _keeps(self, x: Tensor, pos_embed: Tensor | None) -> bool:
        """Whether this call computes numbers, without gradients, from tensors that count writes."""
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
    def _position_map(self, pos_embed: Tensor | None, H: int, W: int) -> Tensor:
        state = [(t.data_ptr(), t._version, t.dtype) for t in (self.weight, pos_embed)]
        key, place = self._kept
        if key != (state, H, W):
            place = position_map(expand_weight(self.weight, self.grid), pos_embed, H, W)
            self._kept = ((state, H, W), place)
        return place


class PeripheralBranch(nn.Module):
    """Peripheral convolution and batch norm: one summand of the block."""

    def __init__(self, channels: int, grid: list[int], pos_mode: str, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.conv = PeripheralConv2d(channels, grid, bias=False, pos_mode=pos_mode, **dd)
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

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)
    """

    def __init__(
        self,
        channels: int,
        grid: list[int],
        small_kernel: int = 5,
        pos_mode: str = "valid",
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        if small_kernel and (small_kernel % 2 == 0 or small_kernel > sum(grid)):
            raise InputError(
                f"small_kernel must be odd and at most {sum(grid)}, the size of the grid, or 0 "
                f"for none; got {small_kernel}"
            )
        self.large = PeripheralBranch(channels, grid, pos_mode, **dd)
        self.small = None
        if small_kernel:
            self.small = PeripheralBranch(channels, [1] * small_kernel, pos_mode, **dd)

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

        Its grid is finer if the small kernel reaches into larger cells.
        """
        grid, (weight, bias) = self.large.conv.grid, self.large.folded()
        if self.small is not None:
            small_weight, small_bias = self.small.folded()
            grid, cells = refine(grid, small_weight.shape[-1])
            index = torch.tensor(cells, device=weight.device)
            weight = weight.index_select(1, index).index_select(2, index)
            weight = weight + center_pad(small_weight, (len(grid), len(grid)))
            bias = bias + small_bias
        return FusedPeripheralConv2d.of(weight, bias, grid, self.large.conv.pos_mode)


def refine(grid: list[int], center: int) -> tuple[list[int], list[int]]:
    """The coarsest grid inside `grid` whose middle `center` cells are 1; and each cell's origin.

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
    """A mixer on the first channels, the identity on the others (PeLK, section 4.1).

    Args:
        mixer: of `channels` channels, called with (x, pos_embed).
        channels: how many of the first channels it mixes.

    Shape: (N, C, H, W), and optionally an embedding (channels, K, K) -> (N, C, H, W)
    """

    def __init__(self, mixer: nn.Module, channels: int):
        super().__init__()
        self.mixer = mixer
        self.channels = channels

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        # A slice of channels has no layout of its own; the copy takes that of the network.
        mixed = self.mixer(channels_last_on_cpu(x[:, : self.channels]), pos_embed)
        return torch.cat([mixed, x[:, self.channels :]], dim=1)
