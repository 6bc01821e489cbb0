"""Peripheral convolution on the CPU: sums of rows first, then one convolution with fewer rows.

All rows of a cell share their weights, so each cell needs only the sum of the rows below it: the
convolution of K rows becomes one of k rows (13 for K = 51, 17 for K = 101) on an input whose rows
are those sums,

    y[i] = sum over cells a of  (1 x K kernel of cell a) on (sum of x[i + u - K // 2], u in a).

The row sums of every output row, k of them, are laid under one another, so that a k x K
convolution of stride (k, 1) computes them all, in the library's fast channels-last kernel. Sums are
made by doubling (2, 4, 8, ... rows), not as differences of prefix sums: each is a short sum of
its own, as exact as the convolution itself on maps of any size.

It pays where the kernel meets many more rows than it has cells. Times faster than the dense kernel,
forward / forward and backward (44 channels, one thread, AVX-512):

    51 x 51 on 56 x 56, batch 8      1.4 / 1.6
    101 x 101 on 56 x 56, batch 8    2.1 / 2.6
    101 x 101 on 128 x 128           3.4 / 2.8
    49 x 49 on 28 x 28, batch 8      1.1 / 1.7

The input's gradient takes the same form, the weight's another with as few terms.

Doing the same to the columns does not pay: the sums of all pairs of sizes are 16 to 36 maps, as
many memory passes as the dense kernel takes altogether. Nor do matrix products with Toeplitz
matrices of the rows: 1.2 times slower for 51 x 51, 1.3 times faster for 101 x 101.

Legend: N batch, C channels, H x W map, K kernel size, k number of cells along an axis.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import depthwise

ROWS_PER_CELL = 2.5  # rows that meet the map, per cell, from which it is faster than dense
TILE_BYTES = 4 << 20  # of row sums at a time: 56 x 56 in one go costs 1.5 times as much at batch 8


def why_not(x: Tensor, weight: Tensor, grid: list[int]) -> str | None:
    """None if this file computes the convolution faster than the dense kernel, else a sentence."""
    reason = depthwise.why_not(x, weight, None, 1)
    if reason is not None:
        return reason
    H, r = x.shape[2], sum(grid) // 2
    met = sum(min(H - 1, i + r) - max(0, i - r) + 1 for i in range(H)) / H
    if met < ROWS_PER_CELL * len(grid):
        return (
            f"the dense kernel is as fast: it meets {met:.0f} rows of the map on average, not "
            f"{ROWS_PER_CELL:g} times the {len(grid)} cells"
        )
    return None


def plan(x: Tensor, weight: Tensor, grid: list[int]) -> str:
    """In words, for `explain`."""
    return f"row sums, then {len(grid)} rows of {sum(grid)} taps instead of {sum(grid)}"


def peripheral_conv2d(x: Tensor, weight: Tensor, grid: list[int], bias: Tensor | None) -> Tensor:
    """`seewide.ops.peripheral_conv2d` without embedding; the result has the layout of `x`."""
    if x.dtype in (torch.bfloat16, torch.float16):
        bias = bias if bias is None else bias.float()
        return peripheral_conv2d(x.float(), weight.float(), grid, bias).to(x.dtype)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Peripheral.apply(x, weight, bias, grid)
    return _forward(x, weight, bias, grid)


def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, grid: list[int]) -> Tensor:
    N, C, H, W = x.shape
    k, K = len(grid), sum(grid)
    kernel = weight.index_select(2, _cells(grid, weight)).unsqueeze(1)
    tile = max(1, TILE_BYTES // (k * W * C * x.element_size()))
    maps = []
    for n in range(N):
        sums = _row_sums(x[n].permute(1, 2, 0), grid)
        for top in range(0, H, tile):
            rows = torch.stack([s[top : top + tile] for s in sums], 1)  # (tile, k, W, C)
            rows = rows.reshape(1, -1, W, C).permute(0, 3, 1, 2)
            y = F.conv2d(rows, kernel, bias, stride=(k, 1), padding=(0, K // 2), groups=C)
            maps.append(y.permute(0, 2, 3, 1))
    y = torch.cat(maps, 1).reshape(N, H, W, C).permute(0, 3, 1, 2)
    return y if depthwise.is_channels_last(x) else y.contiguous()


def _cells(grid: list[int], like: Tensor) -> Tensor:
    """The cell that each tap lies in."""
    cells = [cell for cell, size in enumerate(grid) for _ in range(size)]
    return torch.tensor(cells, device=like.device)


def _row_sums(x: Tensor, grid: list[int]) -> list[Tensor]:
    """(H, ...) -> for each cell, (H, ...): the sum of the rows that it meets from each output."""
    H, r = x.shape[0], sum(grid) // 2
    edge = x.new_zeros(r, *x.shape[1:])
    runs = {1: torch.cat([edge, x, edge])}  # runs[s][i]: sum of rows i .. i + s - 1
    size = 1
    while 2 * size <= max(grid):
        runs[2 * size] = runs[size][:-size] + runs[size][size:]
        size *= 2
    sums, start = [], 0
    for rows in grid:
        parts = []
        while rows:  # 9 rows are 8 and 1
            size = 1 << (rows.bit_length() - 1)
            parts.append(runs[size][start : start + H])
            start, rows = start + size, rows - size
        sums.append(sum(parts[1:], parts[0]))
    return sums


class _Peripheral(torch.autograd.Function):
    """The convolution with both gradients in the same form; differentiable any number of times."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, grid: list[int]) -> Tensor:
        return _forward(x, weight, bias, grid)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, ctx.grid = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            last = depthwise.is_channels_last(x)
            dy = dy.contiguous(
                memory_format=torch.channels_last if last else torch.contiguous_format
            )
            dx = peripheral_conv2d(dy, weight.flip(1, 2), ctx.grid[::-1], None)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(x, dy, ctx.grid)
        if ctx.needs_input_grad[2]:
            db = dy.sum((0, 2, 3))
        return dx, dw, db, None


def _weight_gradient(x: Tensor, dy: Tensor, grid: list[int]) -> Tensor:
    """dw (C, k, k), by products of each cell's row sums with dy, column by column.

    1.4 (K = 51) and 4 (K = 101) times faster on 56 x 56 than the dense kernel's gradient, summed
    over cells afterwards.
    """
    N, C, H, W = x.shape
    dy_CRW = dy.permute(1, 2, 0, 3).reshape(C, H * N, W)
    pairs = _column_pairs(W, grid, x)
    dw = []
    for sums in _row_sums(x.permute(2, 1, 0, 3), grid):  # (H, C, N, W), for one cell of rows
        products = sums.permute(1, 3, 0, 2).reshape(C, W, H * N) @ dy_CRW
        dw.append(products.reshape(C, W * W) @ pairs)
    return torch.stack(dw, 1)


def _column_pairs(W: int, grid: list[int], like: Tensor) -> Tensor:
    """(W * W, k): 1 where an input column meets an output column in that cell, else 0."""
    K, column = sum(grid), torch.arange(W, device=like.device)
    tap = (column[:, None] - column + K // 2).flatten()
    cell = _cells(grid, like)[tap.clamp(0, K - 1)]
    met = (cell[:, None] == torch.arange(len(grid), device=like.device)).t()
    return (met & (tap >= 0) & (tap < K)).t().to(like.dtype)
