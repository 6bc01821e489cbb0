"""Small-kernel aggregation on the GPU, at the speed of its memory.

    y[n, c, i, j] = sum over u, v of w[n, c % G, u * K + v, i, j] * x[n, c, i + u - r, j + v - r]

A pixel's K * K weights serve the C / G channels of its set. So a program takes a few rows and
columns of a few sets, holds their weights in registers, and walks over the channels: each weight
is read once. Neighbouring rows share their pixels: R rows of outputs read R + K - 1 of x, not K R.

Of the gradients, dx is the same sum with each weight read at the output pixel that used it,
dw sums dy times the shifted x over the channels of a set. Both walk over the channels, so one
kernel makes both, without atomics. Second derivatives are made of the same three trilinear maps:

    y = A(x, w)     dx = S(dy, w)     dw = C(dy, x)

Everything is multiplied and added in float32.
Legend: N batch, C channels in G sets, H x W map, r = K // 2, T = K * K taps.
"""

# ruff: noqa: RUF005 (Triton does not support (*a, b) for a + (b,))

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, choose, launch, layout_of, operator

LARGEST = 5  # K; the weights of a pixel no longer fit the registers beyond


def cannot(x: Tensor, weight: Tensor) -> str | None:
    """None if this file can compute the aggregation, else the reason in a sentence."""
    if weight.shape[2] > LARGEST**2:
        return f"a pixel's weights fit the registers up to {LARGEST} x {LARGEST} taps"
    if x.shape[2] * x.shape[3] * weight.shape[2] * weight.shape[1] >= 2**31:
        return "the weights of one image must be fewer than 2**31"
    return None


def small_kernel_aggregation(x: Tensor, weight: Tensor) -> Tensor:
    """`seewide.ops.small_kernel_aggregation` on the GPU; the result has the layout of `x`."""
    return _aggregate(x, weight)


@triton.jit
def _place(SETS, ROWS, COLUMNS, G, BG: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr):
    """Image, weight sets (BG, 1), first row and columns (1, BW) of this program."""
    p = tl.program_id(0)
    columns = (p % COLUMNS) * BW + tl.arange(0, BW)[None, :]
    p = p // COLUMNS
    row = (p % ROWS) * BR
    p = p // ROWS
    sets = (p % SETS) * BG + tl.arange(0, BG)[:, None]
    return (p // SETS).to(tl.int64), sets, row, columns


@triton.jit
def _aggregate_kernel(
    x, w, y, C, G, H, W, SETS, ROWS, COLUMNS,
    K: tl.constexpr, BG: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    n, g, i, j = _place(SETS, ROWS, COLUMNS, G, BG, BR, BW)
    r: tl.constexpr = K // 2
    here = (g < G) & (j < W)
    rows = i + tl.zeros((BG, 1), tl.int32)  # a block, for scalars and blocks mix badly in masks

    w_set = w + n * G * (K * K) * H * W + g * (K * K * H * W)
    weights = ()  # weights[tap * BR + row]
    for t in tl.static_range(K * K):
        for o in tl.static_range(BR):
            inside = here & (rows + o < H)
            tap = tl.load(w_set + (t * H + rows + o) * W + j, mask=inside, other=0.0)
            weights = weights + (tap.to(tl.float32),)

    for first in range(0, C, G):  # channels first + g
        plane = (n * C + first) * H * W + g * (H * W)
        sums = ()
        for _ in tl.static_range(BR):
            sums = sums + (tl.zeros((BG, BW), tl.float32),)
        for v in tl.static_range(K):
            column = j + (v - r)
            column_inside = (g < G) & (column >= 0) & (column < W)
            pixels = ()
            for o in tl.static_range(BR + K - 1):
                row = rows + (o - r)
                inside = column_inside & (row >= 0) & (row < H)
                pixel = tl.load(x + plane + row * W + column, mask=inside, other=0.0)
                pixels = pixels + (pixel.to(tl.float32),)
            more = ()
            for o in tl.static_range(BR):
                total = sums[o]
                for u in tl.static_range(K):
                    total += weights[(u * K + v) * BR + o] * pixels[o + u]
                more = more + (total,)
            sums = more
        for o in tl.static_range(BR):
            tl.store(
                y + plane + (rows + o) * W + j,
                sums[o].to(y.dtype.element_ty),
                mask=here & (rows + o < H),
            )


@triton.jit
def _gradients_kernel(
    x, w, dy, dx, dw, C, G, H, W, SETS, ROWS, COLUMNS,
    K: tl.constexpr, BG: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    n, g, i, j = _place(SETS, ROWS, COLUMNS, G, BG, BR, BW)
    r: tl.constexpr = K // 2
    S: tl.constexpr = BR + K - 1  # rows of x and dy that BR rows of results need
    here = (g < G) & (j < W)
    rows = i + tl.zeros((BG, 1), tl.int32)

    # Pixel (i, j) of x took part, by tap (u, v), in the output at (i - (u - r), j - (v - r)).
    set_start = n * G * (K * K) * H * W + g * (K * K * H * W)
    weights = ()
    dw_sums = ()
    for t in tl.static_range(K * K):
        column = j - (t % K - r)
        column_inside = (g < G) & (column >= 0) & (column < W)
        for o in tl.static_range(BR):
            row = rows + (o - (t // K - r))
            inside = column_inside & (row >= 0) & (row < H)
            tap = tl.load(w + set_start + (t * H + row) * W + column, mask=inside, other=0.0)
            weights = weights + (tap.to(tl.float32),)
            dw_sums = dw_sums + (tl.zeros((BG, BW), tl.float32),)

    for first in range(0, C, G):
        plane = (n * C + first) * H * W + g * (H * W)
        pixels = ()  # pixels[v * S + s], slopes alike: K columns of S rows
        slopes = ()
        for v in tl.static_range(K):
            column = j + (v - r)
            column_inside = (g < G) & (column >= 0) & (column < W)
            for s in tl.static_range(S):
                row = rows + (s - r)
                inside = column_inside & (row >= 0) & (row < H)
                place = plane + row * W + column
                pixels = pixels + (tl.load(x + place, mask=inside, other=0.0).to(tl.float32),)
                slopes = slopes + (tl.load(dy + place, mask=inside, other=0.0).to(tl.float32),)
        more = ()
        for t in tl.static_range(K * K):
            for o in tl.static_range(BR):
                product = slopes[r * S + o + r] * pixels[(t % K) * S + o + t // K]
                more = more + (dw_sums[t * BR + o] + product,)
        dw_sums = more
        for o in tl.static_range(BR):
            total = tl.zeros((BG, BW), tl.float32)
            for t in tl.static_range(K * K):
                total += weights[t * BR + o] * slopes[(K - 1 - t % K) * S + o + K - 1 - t // K]
            tl.store(
                dx + plane + (rows + o) * W + j,
                total.to(dx.dtype.element_ty),
                mask=here & (rows + o < H),
            )

    for t in tl.static_range(K * K):
        for o in tl.static_range(BR):
            tl.store(
                dw + set_start + (t * H + rows + o) * W + j,
                dw_sums[t * BR + o].to(dw.dtype.element_ty),
                mask=here & (rows + o < H),
            )


def _configs(K: int, W: int, backward: bool) -> list[Config]:
    """Rows by what fits the registers: (K * K + ...) floats for each, twice that backward."""
    BW = min(32, max(8, triton.next_power_of_2(W)))
    rows = {1: (4,), 3: (2, 4) if backward else (4, 2), 5: (1,)}[K]
    return [
        Config({"BR": BR, "BW": BW, "BG": 32 * warps // BW}, warps=warps, stages=1)
        for BR in rows
        for warps in (4, 2)
    ]


def _start(kernel, x: Tensor, weight: Tensor, tensors: tuple[Tensor, ...], backward: bool) -> None:
    (N, C, H, W), (G, T) = x.shape, weight.shape[1:3]
    K = {1: 1, 9: 3, 25: 5}[T]

    def run(config: Config) -> None:
        tiles = config.tiles
        parts = tuple(map(triton.cdiv, (G, H, W), (tiles["BG"], tiles["BR"], tiles["BW"])))
        programs = N * parts[0] * parts[1] * parts[2]
        launch(kernel, programs, *tensors, C, G, H, W, *parts, config=config, K=K)

    size = triton.next_power_of_2(N * C * H * W)
    shapes = (x.dtype, K, triton.next_power_of_2(W), C // G, size)
    name = "aggregation gradients" if backward else "aggregation"
    run(choose(name, shapes, _configs(K, W, backward), run, x.device))


@operator(
    "small_kernel_aggregation",
    "(Tensor x, Tensor weight) -> Tensor",
    lambda x, weight: torch.empty_like(x, memory_format=layout_of(x)),
)
def _aggregate(x: Tensor, weight: Tensor) -> Tensor:
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    tensors = (x.contiguous(), weight.contiguous(), y)
    _start(_aggregate_kernel, x, weight, tensors, backward=False)
    return y.contiguous(memory_format=layout_of(x))


@operator(
    "small_kernel_aggregation_gradients",
    "(Tensor x, Tensor weight, Tensor dy) -> (Tensor, Tensor)",
    lambda x, weight, dy: (
        torch.empty_like(x, memory_format=layout_of(x)),
        torch.empty_like(weight, memory_format=torch.contiguous_format),
    ),
)
def _gradients(x: Tensor, weight: Tensor, dy: Tensor) -> tuple[Tensor, Tensor]:
    dx = torch.empty_like(x, memory_format=torch.contiguous_format)
    dw = torch.empty_like(weight, memory_format=torch.contiguous_format)
    tensors = (x.contiguous(), weight.contiguous(), dy.contiguous(), dx, dw)
    _start(_gradients_kernel, x, weight, tensors, backward=True)
    return dx.contiguous(memory_format=layout_of(x)), dw


def _save(ctx, inputs, output) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx, dy: Tensor):
    return _gradients(*ctx.saved_tensors, dy)


def _backward_of_gradients(ctx, ddx: Tensor, ddw: Tensor):
    """Of <ddx, S(dy, w)> + <ddw, C(dy, x)>: by x S(dy, ddw), by w C(dy, ddx), by dy two A's."""
    x, weight, dy = ctx.saved_tensors
    by_x, by_weight = _gradients(ddx, ddw, dy)
    return by_x, by_weight, _aggregate(ddx, weight) + _aggregate(x, ddw)


_aggregate.register_autograd(_backward, setup_context=_save)
_gradients.register_autograd(_backward_of_gradients, setup_context=_save)
