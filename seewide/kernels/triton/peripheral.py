"""Peripheral convolution on the GPU, at the cost of its sharing grid: k * k products, not K * K.

The taps of a cell share their weight, so an output is a sum over cells (a, b) of weight[a, b] times
the pixels below that cell. With E_0 = 0, E_1, ... E_k = K the edges of the cells along an axis:

    S(i, j)   = sum of x(i, j') over j' < j                                     once, along the rows
    B_b(i, j) = S(i, j + E_(b+1) - r) - S(i, j + E_b - r)                   the columns of one cell
    P_b(i, j) = sum of B_b(i', j) over i' < i                               down a column of pixels
    y(i, j)   = sum over b, e of (weight[e - 1, b] - weight[e, b]) * P_b(i + E_e - r, j)

A thread has one column and BR rows of outputs, and for each b the BR + K - 1 sums P_b that they
see, in registers; k (k + 1) products per output remain. Only S sums a full row, and only
in differences over a cell's width, so float32 loses no more than W / 17 of its last digits.

The input's gradient is the same with everything mirrored. The weight's is the dense kernel's
(toeplitz.py), summed over cells.

Legend: N batch, C channels, H x W map, K kernel size, r = K // 2, k number of cells along an axis.
"""

# ruff: noqa: RUF005 (Triton does not support (*a, b) for a + (b,))

from functools import lru_cache
from itertools import accumulate

import torch
import triton
import triton.language as tl
from torch import Tensor

from . import toeplitz
from .launch import Config, choose, launch, layout_of, operator

# Map side from which the cells beat the dense kernel, which tensor cores compute: as predicted from
# the code of both, not yet measured.
CELLS_FROM = {torch.float32: 28, torch.bfloat16: 56, torch.float16: 56}
FEWEST_TAPS = 31  # K; below, the dense kernel is small


def cannot(x: Tensor, weight: Tensor, grid: list[int]) -> str | None:
    """None if this file can compute the convolution, else the reason in a sentence."""
    if x.shape[2] * (x.shape[3] + 1) >= 2**31:
        return "a map must have fewer than 2**31 pixels"
    return None


def plan(x: Tensor, weight: Tensor, grid: list[int]) -> str:
    """ "cells": this file; "dense": the expanded kernel, by depthwise_conv2d."""
    pays = min(x.shape[2:]) >= CELLS_FROM[x.dtype] and sum(grid) >= FEWEST_TAPS
    return "cells" if pays else "dense"


def peripheral_conv2d(x: Tensor, weight: Tensor, grid: list[int], bias: Tensor | None) -> Tensor:
    """`seewide.ops.peripheral_conv2d` without embedding; the result has the layout of `x`."""
    return _peripheral(x, weight, bias, grid, False)


@triton.jit
def _row_sums_kernel(x, sums, LINES, W, BL: tl.constexpr, BW: tl.constexpr):
    """sums[line, j] = x[line, 0] + ... + x[line, j - 1], j = 0 ... W."""
    line = tl.program_id(0).to(tl.int64) * BL + tl.arange(0, BL)[:, None]
    j = tl.arange(0, BW)[None, :]
    inside = (line < LINES) & (j < W)
    pixels = tl.load(x + line * W + j, mask=inside, other=0.0).to(tl.float32)
    start = sums + line * (W + 1)
    tl.store(start + 1 + j, tl.cumsum(pixels, 1), mask=inside)
    tl.store(start + j, tl.zeros((BL, BW), tl.float32), mask=(line < LINES) & (j == 0))


@triton.jit
def _cells_kernel(
    sums, steps, edges, bias, y, N, C, H, W, STRIPS, COLUMN_TILES, IMAGE_TILES,
    EDGES: tl.constexpr, K: tl.constexpr, CELLS: tl.constexpr, HAS_BIAS: tl.constexpr,
    BN: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0)
    j = (p % COLUMN_TILES) * BW + tl.arange(0, BW)[None, :]
    p = p // COLUMN_TILES
    i = (p % STRIPS) * BR + tl.zeros((BN, 1), tl.int32)
    p = p // STRIPS
    n = (p % IMAGE_TILES) * BN + tl.arange(0, BN)[:, None]
    c = (p // IMAGE_TILES).to(tl.int64)
    exists = (n < N) & (j < W)
    plane = n.to(tl.int64) * C + c
    totals = ()
    for _ in tl.static_range(BR):
        totals = totals + (tl.zeros((BN, BW), tl.float32),)
    for b in range(CELLS):
        left = tl.minimum(tl.maximum(j + (tl.load(edges + b) - K // 2), 0), W)
        right = tl.minimum(tl.maximum(j + (tl.load(edges + b + 1) - K // 2), 0), W)
        below = (tl.zeros((BN, BW), tl.float32),)  # below[t]: P_b at row i + t - r
        for t in tl.static_range(BR + K - 1):
            row = i + (t - K // 2)
            inside = exists & (row >= 0) & (row < H)
            start = sums + plane * (H * (W + 1)) + row * (W + 1)
            cell = tl.load(start + right, mask=inside, other=0.0)
            cell -= tl.load(start + left, mask=inside, other=0.0)
            below = below + (below[t] + cell,)
        for e in tl.static_range(CELLS + 1):
            step = tl.load(steps + (c * CELLS + b) * (CELLS + 1) + e)
            more = ()
            for o in tl.static_range(BR):
                more = more + (totals[o] + step * below[o + (EDGES >> (16 * e) & 0xFFFF)],)
            totals = more
    shift = 0.0
    if HAS_BIAS:
        shift = tl.load(bias + c).to(tl.float32)
    for o in tl.static_range(BR):
        place = y + plane * (H * W) + (i + o) * W + j
        tl.store(place, (totals[o] + shift).to(y.dtype.element_ty), mask=exists & (i + o < H))


@lru_cache(maxsize=256)
def _edges_on(device: torch.device, edges: tuple[int, ...]) -> Tensor:
    """Cached, since a CUDA graph cannot capture a copy from the host."""
    return torch.tensor(edges, dtype=torch.int32, device=device)


def _configs(N: int, H: int, W: int) -> list[Config]:
    """Strips of about 32 rows, of equal height; lanes run along columns, then images.

    Two candidates, since each takes Triton some 15 seconds: all rows and edges are unrolled.
    """
    BW = max(8, min(64, triton.next_power_of_2(W)))
    configs = []
    for most, warps in ((32, 4), (16, 4)):
        strips = triton.cdiv(H, most)
        BR = triton.cdiv(triton.cdiv(H, strips), 4) * 4  # a multiple of 4: fewer to compile
        BN = max(1, min(32 * warps // BW, triton.next_power_of_2(N)))
        configs.append(Config({"BN": BN, "BR": BR, "BW": BW}, warps=warps, stages=1))
    return configs


def _packed(edges: tuple[int, ...]) -> int:
    """16 bits for each: Triton 3.3 cannot look into a tuple that is compiled in."""
    return sum(edge << (16 * e) for e, edge in enumerate(edges))


@operator(
    "peripheral_conv2d",
    "(Tensor x, Tensor weight, Tensor? bias, int[] grid, bool flip) -> Tensor",
    lambda x, *rest: torch.empty_like(x, memory_format=layout_of(x)),
)
def _peripheral(
    x: Tensor, weight: Tensor, bias: Tensor | None, grid: list[int], flip: bool
) -> Tensor:
    """With `flip`, the mirrored kernel."""
    if flip:
        weight, grid = weight.flip(1, 2), grid[::-1]
    (N, C, H, W), k, K = x.shape, len(grid), sum(grid)
    lines = N * C * H
    sums = x.new_empty(lines, W + 1, dtype=torch.float32)
    BW = triton.next_power_of_2(W)
    BL = max(1, 1024 // BW)
    rows = Config({"BL": BL, "BW": BW}, warps=4, stages=1)
    launch(_row_sums_kernel, triton.cdiv(lines, BL), x.contiguous(), sums, lines, W, config=rows)

    # steps[c, b, e] = weight[c, e - 1, b] - weight[c, e, b], zero outside
    columns = weight.float().transpose(1, 2)
    steps = -torch.nn.functional.pad(columns, (1, 1)).diff(dim=2)
    edges = (0, *accumulate(grid))
    y = torch.empty_like(x, memory_format=torch.contiguous_format)

    def run(config: Config) -> None:
        BN, BR, BW = (config.tiles[k] for k in ("BN", "BR", "BW"))
        tiles = triton.cdiv(H, BR), triton.cdiv(W, BW), triton.cdiv(N, BN)
        launch(
            _cells_kernel, C * tiles[0] * tiles[1] * tiles[2],
            sums, steps.contiguous(), _edges_on(x.device, edges),
            steps if bias is None else bias, y,
            N, C, H, W, *tiles, config=config, EDGES=_packed(edges), K=K, CELLS=k,
            HAS_BIAS=bias is not None,
        )  # fmt: skip

    shapes = (x.dtype, K, k, H, triton.next_power_of_2(W), triton.next_power_of_2(N * C))
    run(choose("peripheral", shapes, _configs(N, H, W), run, x.device))
    return y.contiguous(memory_format=layout_of(x))


@operator(
    "peripheral_weight_gradient",
    "(Tensor x, Tensor dy, int[] grid) -> Tensor",
    lambda x, dy, grid: x.new_empty(x.shape[1], len(grid), len(grid)),
)
def _weight_gradient(x: Tensor, dy: Tensor, grid: list[int]) -> Tensor:
    """dw (C, k, k)."""
    dense = toeplitz.weight_gradient(x, dy, sum(grid), sum(grid), 1).squeeze(1)
    rows = torch.stack([part.sum(1) for part in dense.split(grid, 1)], 1)
    return torch.stack([part.sum(2) for part in rows.split(grid, 2)], 2).to(x.dtype)


def _save(ctx, inputs, output) -> None:
    x, weight, _, ctx.grid, ctx.flip = inputs
    ctx.save_for_backward(x, weight)


def _backward(ctx, dy: Tensor):
    x, weight = ctx.saved_tensors
    dx = dw = db = None
    if ctx.needs_input_grad[0]:
        dx = _peripheral(dy, weight, None, ctx.grid, not ctx.flip)
    if ctx.needs_input_grad[1]:
        first, second = (dy, x) if ctx.flip else (x, dy)
        dw = _weight_gradient(first, second, ctx.grid)
    if ctx.needs_input_grad[2]:
        db = dy.sum((0, 2, 3))
    return dx, dw, db, None, None


def _save_gradient(ctx, inputs, output) -> None:
    x, dy, ctx.grid = inputs
    ctx.save_for_backward(x, dy)


def _backward_of_gradient(ctx, ddw: Tensor):
    x, dy = ctx.saved_tensors
    by_x = _peripheral(dy, ddw, None, ctx.grid, True)
    return by_x, _peripheral(x, ddw, None, ctx.grid, False), None


_peripheral.register_autograd(_backward, setup_context=_save)
_weight_gradient.register_autograd(_backward_of_gradient, setup_context=_save_gradient)
