"""Peripheral convolution on the CPU, at the cost of its sharing grid: k * k products, not K * K.

The taps of a cell share their weight, so an output is a sum over cells (a, b) of weight[a, b] times
the sum of the pixels below that cell. Rows and columns separate it into three steps, per channel:

    rows     R_a(i, j) = sum of x(i + u - r, j) over the rows u of cell a         additions
    mix      Z_b = sum over a of weight[a, b] * R_a                      (k, k) by (k, H W)
    columns  y(i, j) = sum over b, and columns v of cell b, of Z_b(i, j + v - r)  additions

The sums are made by doubling (2, 4, 8, ... pixels), not as differences of prefix sums: each is a
short sum of its own, as exact as the convolution itself on maps of any size. Columns double in the
opposite order: a sum over 16 pixels is split into two over 8, and so on.

Of the gradients, the input's is the same with everything mirrored; the weight's is the product of
the row sums of x with the mirrored column sums of dy.

At batch 1 that is 1.1 to 1.4 times as fast as the dense kernel, which is convolved by Fourier
transforms on large maps; with larger batches, whose transforms share those of the kernel, and on
maps of less than 28 x 28 the dense kernel is as fast or faster and is left to do it (docs/log).

Legend: P = N C planes of H x W pixels, K kernel size, r = K // 2, k number of cells along an axis.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from . import depthwise
from .opaque import opaque

TILE_BYTES = 6 << 20  # of R and Z at a time; 3 to 12 MB are within 10%
TAPS_PER_CELL = 58  # multiply-adds of the dense kernel that each of the k cells takes as long as


def cannot(x: Tensor) -> str | None:
    """None if this file can compute on `x`, else the reason in a sentence."""
    return depthwise.cannot(x)


def prefer(x: Tensor, grid: list[int]) -> bool:
    """Whether this file is faster than the dense kernel."""
    return _dense_work(x, grid) >= TAPS_PER_CELL * len(grid)


def slower(x: Tensor, grid: list[int]) -> str:
    """Why `prefer` is False, for `explain`."""
    return (
        f"the dense kernel is as fast: it takes the time of {_dense_work(x, grid):.0f} multiply-"
        f"adds per pixel, fewer than {TAPS_PER_CELL} times the {len(grid)} cells of an axis"
    )


def _dense_work(x: Tensor, grid: list[int]) -> float:
    return 0.0 if x.numel() == 0 else depthwise.work(x, sum(grid), sum(grid))


def plan(grid: list[int]) -> str:
    """How this file computes the convolution, for `explain`."""
    k, K = len(grid), sum(grid)
    return f"row sums, products of {k} x {k} instead of {K} x {K} weights, column sums"


def peripheral_conv2d(x: Tensor, weight: Tensor, grid: list[int], bias: Tensor | None) -> Tensor:
    """`seewide.ops.peripheral_conv2d` without embedding; the result has the layout of `x`."""
    if x.dtype in (torch.bfloat16, torch.float16):
        bias = bias if bias is None else bias.float()
        return peripheral_conv2d(x.float(), weight.float(), grid, bias).to(x.dtype)
    trained = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if torch.is_grad_enabled() and trained:
        return _Peripheral.apply(x, weight, bias, grid)
    return _forward(x, weight, bias, grid)


@opaque(
    "peripheral_conv2d_cpu",
    "(Tensor x, Tensor weight, Tensor? bias, int[] grid) -> Tensor",
    lambda x, *args: torch.empty_like(x, memory_format=depthwise.layout_of(x)),
)
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, grid: list[int]) -> Tensor:
    N, C, H, W = x.shape
    k = len(grid)
    planes = x.reshape(N * C, H, W)
    mix = weight.transpose(1, 2).repeat(N, 1, 1)  # of each plane: (b, a)
    y = torch.empty_like(planes)
    for part in _parts(planes, k):
        rows = _cell_sums(planes[part], grid, 1).flatten(2)
        mixed = torch.bmm(mix[part], rows).view(-1, k, H, W)
        y[part] = _sum_of_cells(mixed, grid)
    y = y.view(x.shape)
    if bias is not None:
        y += bias[:, None, None]
    return y.contiguous(memory_format=depthwise.layout_of(x))


def _parts(planes: Tensor, k: int) -> list[slice]:
    """Slices of the planes whose sums fit in the cache."""
    P, H, W = planes.shape
    size = max(1, TILE_BYTES // (2 * k * H * W * planes.element_size()))
    return [slice(start, start + size) for start in range(0, P, size)]


def _pieces(grid: list[int]) -> list[tuple[int, int, int]]:
    """(cell, first tap, size) of the powers of two that the cells are made of: 9 is 8 and 1."""
    pieces, start = [], 0
    for cell, left in enumerate(grid):
        while left:
            size = 1 << (left.bit_length() - 1)
            pieces.append((cell, start, size))
            start, left = start + size, left - size
    return pieces


def _cell_sums(x: Tensor, grid: list[int], dim: int) -> Tensor:
    """(P, H, W) -> (P, k, H, W): sums over the pixels of each cell, along `dim`."""
    length, r = x.shape[dim], sum(grid) // 2
    edges = (0, 0, r, r) if dim == 1 else (r, r)
    runs = {1: F.pad(x, edges)}  # runs[s](i): sum of pixels i .. i + s - 1
    size = 1
    while 2 * size <= max(grid):
        run = runs[size]
        left = run.shape[dim] - size
        runs[2 * size] = run.narrow(dim, 0, left) + run.narrow(dim, size, left)
        size *= 2
    sums = x.new_empty(x.shape[0], len(grid), *x.shape[1:])
    begun = -1
    for cell, start, size in _pieces(grid):
        piece = runs[size].narrow(dim, start, length)
        if cell == begun:
            sums[:, cell] += piece
        else:
            sums[:, cell] = piece
        begun = cell
    return sums


def _sum_of_cells(cells: Tensor, grid: list[int]) -> Tensor:
    """(P, k, H, W) -> (P, H, W): for each pixel, the cells' maps summed over their columns."""
    P, _, H, W = cells.shape
    r, largest = sum(grid) // 2, max(grid).bit_length()
    # due[s](j): what remains to be summed over columns j .. j + s - 1
    due = {s: cells.new_zeros(P, H, W + 2 * s) for s in (1 << n for n in range(largest))}
    for cell, start, size in _pieces(grid):
        shift = start - r
        first, last = max(0, -shift), min(W + 2 * size, W - shift)
        if first < last:
            due[size][..., first:last] += cells[:, cell, :, first + shift : last + shift]
    for size in reversed(due):
        if size > 1:
            half = due[size // 2]
            half += due[size][..., : half.shape[2]]
            half += due[size][..., size // 2 :][..., : half.shape[2]]
    return due[1][..., :W]


class _Peripheral(torch.autograd.Function):
    """The convolution; its gradients are made of differentiable calls."""

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
            dx = peripheral_conv2d(dy, weight.flip(1, 2), ctx.grid[::-1], None)
        if ctx.needs_input_grad[1]:
            dw = _weight_gradient(x, dy, ctx.grid)
        if ctx.needs_input_grad[2]:
            db = dy.sum((0, 2, 3))
        return dx, dw, db, None


@opaque(
    "peripheral_weight_gradient_cpu",
    "(Tensor x, Tensor dy, int[] grid) -> Tensor",
    lambda x, dy, grid: x.new_empty(x.shape[1], len(grid), len(grid)),
)
def _weight_gradient(x: Tensor, dy: Tensor, grid: list[int]) -> Tensor:
    """dw (C, k, k)."""
    (N, C, H, W), k = x.shape, len(grid)
    x, dy = x.reshape(-1, H, W), dy.reshape(-1, H, W)
    dw = x.new_empty(N * C, k, k)
    for part in _parts(x, k):
        rows = _cell_sums(x[part], grid, 1).flatten(2)
        columns = _cell_sums(dy[part], grid[::-1], 2).flatten(2)
        dw[part] = torch.bmm(rows, columns.transpose(1, 2))
    return dw.view(N, C, k, k).sum(0).flip(2)
