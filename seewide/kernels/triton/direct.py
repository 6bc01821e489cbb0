"""Depthwise convolution with few taps, on the GPU's ordinary cores.

A thread has one column and BR rows of outputs in registers. For each column of taps it reads the
BR + kh - 1 pixels that they see, once, and multiplies each of them by up to kh weights: at kh = 7
and 4 rows 10 loads serve 28 products. Rows and taps are unrolled, columns of taps are a loop.

With dilation d, the rows of a program lie d apart, so that they share pixels all the same.

Channels last, neighbouring threads have neighbouring channels, several each, and BO columns of
outputs; a pixel is multiplied by kw weights as soon as it is read. No copy into planes is made.

Legend: N batch, C channels, H x W map, kh x kw taps, ph = kh // 2, pw = kw // 2.
"""

# ruff: noqa: RUF005 (Triton does not support (*a, b) for a + (b,))

import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, choose, launch
from .toeplitz import planes

WIDE = 16  # bytes that a thread reads at once


@triton.jit
def _convolve_kernel(
    x, w, bias, y, N, C, H, W, sn, sc, ROW_TILES, COLUMN_TILES, IMAGE_TILES,
    KH: tl.constexpr, KW: tl.constexpr, DILATION: tl.constexpr, FLIP: tl.constexpr,
    HAS_BIAS: tl.constexpr, BN: tl.constexpr, BR: tl.constexpr, BW: tl.constexpr,
):  # fmt: skip
    p = tl.program_id(0)
    j = (p % COLUMN_TILES) * BW + tl.arange(0, BW)[None, :]
    p = p // COLUMN_TILES
    tile = p % ROW_TILES
    # Rows i, i + d, i + 2 d, ...: phase and block of BR rows of that phase.
    i = tile % DILATION + tile // DILATION * (BR * DILATION) + tl.zeros((BN, 1), tl.int32)
    p = p // ROW_TILES
    n = (p % IMAGE_TILES) * BN + tl.arange(0, BN)[:, None]
    c = (p // IMAGE_TILES).to(tl.int64)
    exists = n < N
    x_plane = x + c * sc + n.to(tl.int64) * sn
    w_plane = w + c * (KH * KW)

    sums = ()
    for _ in tl.static_range(BR):
        sums = sums + (tl.zeros((BN, BW), tl.float32),)
    for v in range(KW):
        column = j + (v - KW // 2) * DILATION
        column_inside = exists & (column >= 0) & (column < W)
        pixels = ()
        for s in tl.static_range(BR + KH - 1):
            row = i + (s - KH // 2) * DILATION
            inside = column_inside & (row >= 0) & (row < H)
            pixel = tl.load(x_plane + (row * W + column), mask=inside, other=0.0)
            pixels = pixels + (pixel.to(tl.float32),)
        for u in tl.static_range(KH):
            if FLIP:
                tap = tl.load(w_plane + (KH * KW - 1 - u * KW - v)).to(tl.float32)
            else:
                tap = tl.load(w_plane + (u * KW + v)).to(tl.float32)
            more = ()
            for o in tl.static_range(BR):
                more = more + (sums[o] + tap * pixels[o + u],)
            sums = more

    shift = 0.0
    if HAS_BIAS:
        shift = tl.load(bias + c).to(tl.float32)
    y_plane = y + (n.to(tl.int64) * C + c) * H * W
    for o in tl.static_range(BR):
        row = i + o * DILATION
        written = exists & (j < W) & (row < H)
        tl.store(y_plane + (row * W + j), (sums[o] + shift).to(y.dtype.element_ty), mask=written)


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, flip: bool, y: Tensor
) -> None:
    """As `toeplitz.convolve`."""
    (N, C, H, W), (kh, kw) = x.shape, weight.shape[2:]
    x, weight = planes(x), weight.contiguous()

    def run(config: Config) -> None:
        BN, BR, BW = (config.tiles[k] for k in ("BN", "BR", "BW"))
        row_tiles = dilation * triton.cdiv(triton.cdiv(H, dilation), BR)
        column_tiles, image_tiles = triton.cdiv(W, BW), triton.cdiv(N, BN)
        launch(
            _convolve_kernel, C * image_tiles * row_tiles * column_tiles,
            x, weight, x if bias is None else bias, y, N, C, H, W, x.stride(0), x.stride(1),
            row_tiles, column_tiles, image_tiles, config=config, KH=kh, KW=kw,
            DILATION=dilation, FLIP=flip, HAS_BIAS=bias is not None,
        )  # fmt: skip

    sizes = (triton.next_power_of_2(size) for size in (W, H, N * C))
    shapes = (x.dtype, f"{kh}x{kw}", dilation, *sizes)
    run(choose("direct", shapes, _configs(N, W, kh), run, x.device))


def _configs(N: int, W: int, kh: int) -> list[Config]:
    """Candidates: one output per thread and row; lanes run along columns, then images."""
    BW = max(8, min(64, triton.next_power_of_2(W)))
    configs = []
    for warps, BR in ((4, 4), (4, 8), (2, 4), (8, 2)):
        BN = max(1, min(32 * warps // BW, triton.next_power_of_2(N)))
        configs.append(Config({"BN": BN, "BR": BR, "BW": BW}, warps=warps, stages=1))
    return configs


@triton.jit
def _convolve_last_kernel(
    x, w, bias, y, C, H, W, CHANNEL_TILES, COLUMN_TILES, ROW_TILES,
    KH: tl.constexpr, KW: tl.constexpr, DILATION: tl.constexpr, FLIP: tl.constexpr,
    HAS_BIAS: tl.constexpr, BI: tl.constexpr, BO: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    """x and y (N, H, W, C), w (kh, kw, C)."""
    p = tl.program_id(0)
    c = (p % CHANNEL_TILES) * BC + tl.arange(0, BC)[None, :]
    p = p // CHANNEL_TILES
    tile = p % COLUMN_TILES
    # Columns j, j + d, j + 2 d, ...: phase and block of BO columns of that phase.
    j = tile % DILATION + tile // DILATION * (BO * DILATION) + tl.zeros((BI, 1), tl.int32)
    p = p // COLUMN_TILES
    i = (p % ROW_TILES) * BI + tl.arange(0, BI)[:, None]
    image = (p // ROW_TILES).to(tl.int64) * H * W * C

    sums = ()
    for _ in tl.static_range(BO):
        sums = sums + (tl.zeros((BI, BC), tl.float32),)
    for u in range(KH):
        row = i + (u - KH // 2) * DILATION
        row_inside = (c < C) & (row >= 0) & (row < H)
        taps = ()
        for v in tl.static_range(KW):
            if FLIP:
                tap = tl.load(w + (KH * KW - 1 - u * KW - v) * C + c, mask=c < C, other=0.0)
            else:
                tap = tl.load(w + (u * KW + v) * C + c, mask=c < C, other=0.0)
            taps = taps + (tap.to(tl.float32),)
        for s in tl.static_range(BO + KW - 1):
            column = j + (s - KW // 2) * DILATION
            inside = row_inside & (column >= 0) & (column < W)
            pixel = tl.load(x + image + ((row * W + column) * C + c), mask=inside, other=0.0)
            pixel = pixel.to(tl.float32)
            more = ()
            for o in tl.static_range(BO):
                if o <= s and s < o + KW:
                    more = more + (sums[o] + taps[s - o] * pixel,)
                else:
                    more = more + (sums[o],)
            sums = more

    if HAS_BIAS:
        shift = tl.load(bias + c, mask=c < C, other=0.0).to(tl.float32)
    else:
        shift = tl.zeros((1, BC), tl.float32)
    for o in tl.static_range(BO):
        column = j + o * DILATION
        written = (c < C) & (i < H) & (column < W)
        place = y + image + ((i * W + column) * C + c)
        tl.store(place, (sums[o] + shift).to(y.dtype.element_ty), mask=written)


def convolve_last(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, flip: bool, y: Tensor
) -> None:
    """As `convolve`, with x and y in channels-last memory."""
    (N, C, H, W), (kh, kw) = x.shape, weight.shape[2:]
    weight = weight.permute(2, 3, 0, 1).contiguous()

    def run(config: Config) -> None:
        BI, BO, BC = (config.tiles[k] for k in ("BI", "BO", "BC"))
        channel_tiles, row_tiles = triton.cdiv(C, BC), triton.cdiv(H, BI)
        column_tiles = dilation * triton.cdiv(triton.cdiv(W, dilation), BO)
        launch(
            _convolve_last_kernel, N * row_tiles * column_tiles * channel_tiles,
            x, weight, x if bias is None else bias, y, C, H, W,
            channel_tiles, column_tiles, row_tiles, config=config, KH=kh, KW=kw,
            DILATION=dilation, FLIP=flip, HAS_BIAS=bias is not None,
        )  # fmt: skip

    sizes = (triton.next_power_of_2(size) for size in (W, H, C, N * C))
    shapes = (x.dtype, f"{kh}x{kw}", dilation, *sizes)
    run(choose("direct last", shapes, _configs_last(C, H, x.element_size()), run, x.device))


def _configs_last(C: int, H: int, size: int) -> list[Config]:
    """Candidates: WIDE bytes of channels per thread, of elements of `size` bytes."""
    each = WIDE // size
    BC = max(8, min(8 * each, triton.next_power_of_2(C)))
    configs = []
    for warps, BO in ((4, 8), (4, 4), (2, 8)):
        BI = max(1, min(32 * warps * each // BC, triton.next_power_of_2(H)))
        configs.append(Config({"BI": BI, "BO": BO, "BC": BC}, warps=warps, stages=1))
    return configs
