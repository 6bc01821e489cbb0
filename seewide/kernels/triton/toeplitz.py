"""Depthwise convolution on tensor cores, as products with a banded (Toeplitz) matrix.

One channel at a time. The outputs are cut into blocks of BH x BW pixels; all blocks at the same
columns, of every image, share one matrix T made of the channel's kernel:

    Y[m, (bi, bj)] = sum over (r, c) of X[m, (r, c)] * T[(r, c), (bi, bj)]
    X[m, (r, c)]   = x[n, i0 + r - rh, c0 + c]            m: image n and block row, i0 its first row
    T[(r, c), (bi, bj)] = w[r - bi, c0 + c - (j0 + bj) + rw], zero outside the kernel

Of T's entries K * K in (BH + K - 1)(BW + K - 1) are not zero: 8 x 32 blocks waste 60% at K = 31. In
return the tensor cores of an H200 do 12 times the products of its other cores.

T is never built. Its columns are pieces of the zero-padded kernel's rows, shifted. So that every
piece begins at a multiple of REP elements, for copies of 8 or 16 bytes that pass by the registers,
the padded kernel is stored REP times, each shifted by one more (`_prepare_kernel`).

The weight's gradient is the same idea turned round. Rows of dy times rows of x give all products of
two columns, and the wanted sums lie on its diagonals:

    A[j, (u, c)] = sum over n, i of dy[n, i, j] * x[n, i + u - rh, c]
    dw[u, v]     = sum over j of A[j, (u, j + v - rw)]

Dilation: T's kernel has zeros between its taps; of A other diagonals are read.

Sums are float32. Halves are multiplied as they are, float32 in three TF32 products, which is as
exact as float32 itself (7.5e-8 on K = 31); in one (3e-4) only if PyTorch's setting for products of
matrices is TF32 (`torch.backends.cuda.matmul.fp32_precision`, once `allow_tf32`).
A zero of T times an infinite or NaN pixel is NaN: such a pixel also spoils outputs up to a block
outside its kernel's reach.

Legend: N batch, C channels, H x W map, kh x kw taps, eh x ew the kernel's extent with dilation,
rh = eh // 2, rw = ew // 2.
"""

from dataclasses import replace

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, choose, launch, wgmma

WAVES = 264  # programs to split the batch into at least: two for each multiprocessor of an H200


def precision(x: Tensor) -> str:
    """How `tl.dot` multiplies."""
    if x.dtype != torch.float32:
        return "ieee"  # halves have one way
    matmul = torch.backends.cuda.matmul
    try:
        allowed = matmul.fp32_precision == "tf32"
    except AttributeError:  # before PyTorch 2.9; since then, the old name may raise
        allowed = matmul.allow_tf32
    return "tf32" if allowed else "tf32x3"


@triton.jit
def _prepare_kernel(
    w, padded,
    KH: tl.constexpr, KW: tl.constexpr, DILATION: tl.constexpr, FLIP: tl.constexpr,
    REP: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr, ROWS: tl.constexpr,
    WIDTH: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """padded[c, s, TOP + u, LEFT + v - s] = w[c, u, v] at the taps, zero elsewhere."""
    p = tl.program_id(0)
    c = (p // (ROWS * REP)).to(tl.int64)
    s = p // ROWS % REP
    column = tl.arange(0, BLOCK)
    u = p % ROWS - TOP + tl.zeros((BLOCK,), tl.int32)
    v = column + s - LEFT
    inside = (u >= 0) & (u < (KH - 1) * DILATION + 1) & (v >= 0) & (v < (KW - 1) * DILATION + 1)
    tap = inside & (u % DILATION == 0) & (v % DILATION == 0)
    index = (u // DILATION) * KW + v // DILATION
    if FLIP:
        index = KH * KW - 1 - index
    index = tl.multiple_of(index, 1)  # up to Triton 3.6, `constant - arange` is claimed aligned
    weight = tl.load(w + c * (KH * KW) + index, mask=tap, other=0.0)
    start = padded + ((c * REP + s) * ROWS + p % ROWS) * WIDTH
    tl.store(start + column, weight, mask=column < WIDTH)


@triton.jit
def _convolve_kernel(
    x, padded, bias, y, N, C, H, W_any, sn_any, sc_any, BLOCK_ROWS, BLOCK_COLUMNS, TILES,
    EH: tl.constexpr, EW: tl.constexpr, TOP: tl.constexpr, LEFT: tl.constexpr,
    ROWS: tl.constexpr, WIDTH: tl.constexpr, CHUNKS: tl.constexpr, ALIGN: tl.constexpr,
    ROWS_IN_M: tl.constexpr, HAS_BIAS: tl.constexpr, PRECISION: tl.constexpr,
    BM: tl.constexpr, BH: tl.constexpr, BW: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr,
    REP: tl.constexpr,
):  # fmt: skip
    RH: tl.constexpr = EH // 2
    RW: tl.constexpr = EW // 2
    # The compiler detects multiples of 16 only; this expression shows it multiples of 8 and 4.
    W = (W_any // ALIGN) * ALIGN
    sn = (sn_any // ALIGN) * ALIGN
    sc = (sc_any // ALIGN) * ALIGN
    p = tl.program_id(0)
    tile = p % TILES
    j0 = (p // TILES % BLOCK_COLUMNS) * BW
    c = (p // TILES // BLOCK_COLUMNS).to(tl.int64)

    # The rows of X: images, or images and block rows where the batch is smaller than BM.
    if ROWS_IN_M:
        m = tile * BM + tl.arange(0, BM)
        n = m // BLOCK_ROWS
        block = tl.multiple_of(m - n * BLOCK_ROWS, 1)
        first = tl.maximum(0, RH - (BLOCK_ROWS - 1) * BH)
        last = tl.minimum(BH + EH - 1, H + RH)
    else:
        block_row = tile % BLOCK_ROWS
        n = (tile // BLOCK_ROWS) * BM + tl.arange(0, BM)
        block = block_row + tl.zeros((BM,), tl.int32)
        first = tl.maximum(0, RH - block_row * BH)
        last = tl.minimum(BH + EH - 1, H + RH - block_row * BH)
    exists = n < N
    i0 = block * BH
    x_plane = x + c * sc + n.to(tl.int64) * sn

    # A chunk of the sum: BR rows and BC columns of the window that the block's outputs see.
    c0 = (tl.maximum(0, j0 - RW) // 8) * 8
    k = tl.arange(0, BR * BC)
    r, column = k // BC, k % BC

    # The columns of T: shift s of the padded kernel, from a multiple of REP on.
    b = tl.arange(0, BH * BW)
    bi, bj = b // BW, b % BW
    start = c0 - j0 + (RW + LEFT) - bj
    s = start & (REP - 1)
    t_row = (s * ROWS + TOP - bi) * WIDTH + (start - s)
    t_start = padded + c * (REP * ROWS * WIDTH) + tl.multiple_of(t_row, REP)

    total = tl.zeros((BM, BH * BW), tl.float32)
    # One flat loop: an unrolled inner one would give each product its own buffers.
    above, chunk = first, 0
    for _ in range(((last - first + BR - 1) // BR) * CHUNKS):
        row = (i0 - RH + above)[:, None] + r[None, :]
        x_column = c0 + chunk * BC + column
        inside = exists[:, None] & (row >= 0) & (row < H) & (x_column < W)[None, :]
        pixels = tl.load(x_plane[:, None] + (row * W + x_column[None, :]), mask=inside, other=0.0)
        offset = (above + r) * WIDTH + (chunk * BC + column)
        band = tl.load(t_start[:, None] + offset[None, :], cache_modifier=".ca")
        total = tl.dot(pixels, tl.trans(band), total, input_precision=PRECISION)
        if CHUNKS == 1:
            above += BR
        else:
            above = tl.where(chunk == CHUNKS - 1, above + BR, above)
            chunk = tl.where(chunk == CHUNKS - 1, 0, chunk + 1)
    if HAS_BIAS:
        total += tl.load(bias + c).to(tl.float32)
    i, j = i0[:, None] + bi[None, :], (j0 + bj)[None, :]
    y_plane = y + (n.to(tl.int64) * C + c) * H * W
    written = exists[:, None] & (i < H) & (j < W)
    tl.store(y_plane[:, None] + (i * W + j), total.to(y.dtype.element_ty), mask=written)


@triton.jit
def _weight_gradient_kernel(
    x, dy, dw, H, W_any, sn_any, sc_any, dn_any, dc_any, LINES, PER_SPLIT, C, SPLITS,
    COLUMN_TILES, WINDOWS, GROUPS,
    KH: tl.constexpr, KW: tl.constexpr, DILATION: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, BV: tl.constexpr,
    BL: tl.constexpr, BJ: tl.constexpr, BX: tl.constexpr, BU: tl.constexpr,
):  # fmt: skip
    """Partial sums dw[split, column tile, window, c, u, v] of BU rows of taps."""
    RH: tl.constexpr = KH // 2 * DILATION
    RW: tl.constexpr = KW // 2 * DILATION
    W = (W_any // ALIGN) * ALIGN
    p = tl.program_id(0)
    u0 = (p % GROUPS) * BU
    p = p // GROUPS
    window = p % WINDOWS
    p = p // WINDOWS
    tile = p % COLUMN_TILES
    p = p // COLUMN_TILES
    split = p % SPLITS
    c = (p // SPLITS).to(tl.int64)

    j = tile * BJ + tl.arange(0, BJ)
    c0 = (tl.maximum(0, tile * BJ - RW) // 8) * 8 + window * BX
    k = tl.arange(0, BU * BX)
    u, column = u0 + k // BX, c0 + k % BX
    down = u * DILATION - RH
    column_inside = (column < W) & (u < KH)
    x_plane = x + c * ((sc_any // ALIGN) * ALIGN)
    dy_plane = dy + c * ((dc_any // ALIGN) * ALIGN)
    lines = tl.arange(0, BL)
    end = tl.minimum(LINES, (split + 1) * PER_SPLIT)
    total = tl.zeros((BJ, BU * BX), tl.float32)
    for start in range(split * PER_SPLIT, end, BL):
        line = start + lines  # of all images, one below the other
        n = line // H
        i = tl.multiple_of(line - n * H, 1)
        n = n.to(tl.int64)
        there = line < end
        dy_line = dy_plane + n * ((dn_any // ALIGN) * ALIGN) + i * W
        slopes = tl.load(
            dy_line[:, None] + j[None, :], mask=there[:, None] & (j < W)[None, :], other=0.0
        )
        row = i[:, None] + down[None, :]
        x_image = x_plane + n * ((sn_any // ALIGN) * ALIGN)
        inside = there[:, None] & (row >= 0) & (row < H) & column_inside[None, :]
        pixels = tl.load(x_image[:, None] + (row * W + column[None, :]), mask=inside, other=0.0)
        total = tl.dot(tl.trans(slopes), pixels, total, input_precision=PRECISION)

    v = tl.arange(0, BV)
    diagonal = j[:, None, None] + (v * DILATION - RW - c0)[None, None, :]
    on = (diagonal >= 0) & (diagonal < BX)
    index = tl.minimum(tl.maximum(diagonal, 0), BX - 1) + tl.zeros((BJ, BU, BV), tl.int32)
    found = tl.gather(tl.reshape(total, (BJ, BU, BX)), index, 2)
    sums = tl.sum(tl.where(on, found, 0.0), 0)
    taps = u0 + tl.arange(0, BU)
    part = ((split * COLUMN_TILES + tile) * WINDOWS + window) * C + c
    place = dw + part * (KH * KW) + taps[:, None] * KW + v[None, :]
    tl.store(place, sums, mask=(taps < KH)[:, None] & (v < KW)[None, :])


def _alignment(W: int, *tensors: Tensor) -> int:
    """The largest of 8, 4, 2, 1 pixels that every row of every plane is a multiple of."""
    steps = [W, *(t.stride(axis) for t in tensors for axis in (0, 1))]
    return next(a for a in (8, 4, 2, 1) if all(step % a == 0 for step in steps))


def planes(x: Tensor) -> Tensor:
    """`x`, or a copy of it whose H x W planes are contiguous, at any distances."""
    return x if x.stride(3) == 1 and x.stride(2) == x.shape[3] else x.contiguous()


def convolve(
    x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, flip: bool, y: Tensor
) -> None:
    """Fill the contiguous y with the convolution of x by weight (C, 1, kh, kw).

    With `flip`, by the weight turned by 180 degrees.
    """
    (N, C, H, W), (kh, kw) = x.shape, weight.shape[2:]
    eh, ew = (kh - 1) * dilation + 1, (kw - 1) * dilation + 1
    x, weight = planes(x), weight.contiguous()

    def run(config: Config) -> None:
        BH, BW, BM, BR, BC, REP = (config.tiles[k] for k in ("BH", "BW", "BM", "BR", "BC", "REP"))
        window = min(W, BW + ew - 1 + 7)  # which begins at a multiple of 8
        chunks = triton.cdiv(window, BC)
        shape = {
            "TOP": BH - 1,
            "LEFT": BW + 7,
            "ROWS": eh + 2 * (BH - 1) + BR,
            "WIDTH": triton.cdiv(ew // 2 + BW + 7 + chunks * BC + 8, 8) * 8,
        }
        padded = x.new_empty(C, REP, shape["ROWS"], shape["WIDTH"])
        launch(
            _prepare_kernel, C * REP * shape["ROWS"], weight, padded, config=PREPARE,
            KH=kh, KW=kw, DILATION=dilation, FLIP=flip, REP=REP,
            BLOCK=triton.next_power_of_2(shape["WIDTH"]), **shape,
        )  # fmt: skip
        block_rows, block_columns = triton.cdiv(H, BH), triton.cdiv(W, BW)
        rows_in_m = N < BM
        tiles = triton.cdiv(N * block_rows, BM) if rows_in_m else triton.cdiv(N, BM) * block_rows
        launch(
            _convolve_kernel, C * block_columns * tiles,
            x, padded, x if bias is None else bias, y, N, C, H, W, x.stride(0), x.stride(1),
            block_rows, block_columns, tiles, config=config, EH=eh, EW=ew, CHUNKS=chunks,
            ALIGN=_alignment(W, x), ROWS_IN_M=rows_in_m, HAS_BIAS=bias is not None,
            PRECISION=precision(x), **shape,
        )  # fmt: skip

    shapes = (x.dtype, f"{eh}x{ew}", _class(W), _class(H), _alignment(W, x), _class(N * C))
    configs = convolve_configs(N, H, W, ew, x.dtype == torch.float32, wgmma(x.device))
    run(choose("toeplitz", shapes, configs, run, x.device))


def weight_gradient(x: Tensor, dy: Tensor, kh: int, kw: int, dilation: int) -> Tensor:
    """dw (C, 1, kh, kw), float32."""
    N, C, H, W = x.shape
    x, dy = planes(x), planes(dy)
    rw, lines = kw // 2 * dilation, N * H
    if x.numel() == 0:
        return x.new_zeros(C, 1, kh, kw, dtype=torch.float32)

    def run(config: Config) -> Tensor:
        BJ, BX, BU, BL = (config.tiles[k] for k in ("BJ", "BX", "BU", "BL"))
        column_tiles, groups = triton.cdiv(W, BJ), triton.cdiv(kh, BU)
        windows = triton.cdiv(min(W, BJ + 2 * rw + 7), BX)
        parts = column_tiles * windows
        splits = max(1, min(triton.cdiv(WAVES, C * parts * groups), triton.cdiv(lines, BL)))
        per_split = triton.cdiv(triton.cdiv(lines, splits), BL) * BL
        splits = triton.cdiv(lines, per_split)
        sums = x.new_empty(splits * parts, C, kh, kw, dtype=torch.float32)
        launch(
            _weight_gradient_kernel, C * splits * parts * groups,
            x, dy, sums, H, W, x.stride(0), x.stride(1), dy.stride(0), dy.stride(1),
            lines, per_split, C, splits, column_tiles, windows, groups,
            config=config, KH=kh, KW=kw, DILATION=dilation, ALIGN=_alignment(W, x, dy),
            PRECISION=precision(x), BV=max(16, triton.next_power_of_2(kw)),
        )  # fmt: skip
        return sums.sum(0).unsqueeze(1)

    shapes = (x.dtype, f"{kh}x{kw}", dilation, _class(W), _class(lines), _alignment(W, x, dy))
    configs = gradient_configs(W, rw, x.dtype == torch.float32)
    return run(choose("toeplitz weight gradient", (*shapes, C), configs, run, x.device))


def _class(size: int) -> int:
    """Sizes that are tuned together."""
    return triton.next_power_of_2(size)


PREPARE = Config(warps=1, stages=1)


def convolve_configs(N: int, H: int, W: int, ew: int, float32: bool, wgmma: bool) -> list[Config]:
    """Candidates: (BH, BW, BM), in this order predicted fastest from the code of sm_90.

    A product of BM x 256 moves 85 operations per byte of L2; less is starved. Three TF32 products
    need the registers of three, so float32 has chunks and blocks of half the size, or a quarter
    without wgmma (sm_80: 128 x 128 spills 480 bytes and more).
    """
    if W <= 8:
        blocks = [(8, 8, 64), (8, 8, 128)]
    elif W <= 16:
        blocks = [(8, 16, 128), (4, 16, 128), (8, 16, 64), (4, 16, 64)]
    elif W <= 32:
        blocks = [(8, 32, 128), (4, 32, 128), (4, 32, 256), (4, 32, 64)]
    elif W <= 64:
        blocks = [(4, 64, 128), (2, 64, 128), (2, 64, 64)]
    elif ew < 51:
        blocks = [(8, 16, 128), (4, 32, 128), (4, 32, 256), (4, 32, 64)]
    else:
        blocks = [(4, 64, 128), (4, 32, 128), (4, 64, 64), (2, 64, 64)]
    largest = (128 * 128 if wgmma else 64 * 128) if float32 else 256 * 128
    copied_singly = W <= 16 or W % 4 != 0  # such loads take registers
    rows = N * H  # blocks fuller than the batch are waste
    configs = []
    for BH, BW, BM in blocks:
        if largest < BM * BH * BW or (BM > 128 and copied_singly):
            continue
        if BM > 64 and 2 * triton.cdiv(rows, BH) < BM:
            continue
        depth = 32 if float32 else 64
        BC = min(BW, depth) if W <= BW else 32
        most = (8192 if wgmma else 4096) if float32 or copied_singly else 16384 - 1
        warps = 8 if most < BM * BH * BW else 4
        tiles = {"BM": BM, "BH": BH, "BW": BW, "BR": depth // BC, "BC": BC, "REP": 4}
        configs.append(Config(tiles, warps=warps, stages=2 if float32 else 3))
    if not configs:
        BH, BW, BM = min(blocks, key=lambda block: block[0] * block[1] * block[2])
        return convolve_configs(BM * BH, 1, W, ew, float32, wgmma)
    if not float32:  # copies of 16 bytes: fewer instructions, but before Triton 3.9 not through L1
        configs.append(replace(configs[0], tiles={**configs[0].tiles, "REP": 8}))
    return configs


def gradient_configs(W: int, rw: int, float32: bool) -> list[Config]:
    """Candidates: BU rows of taps at once, so that BU * BX is 256 columns of A; lines at a time."""
    BJ = max(16, min(64, triton.next_power_of_2(W)))
    BX = max(16, min(128, triton.next_power_of_2(min(W, BJ + 2 * rw + 7))))
    width = 128 if float32 else 256
    configs = []
    for BL in (32, 64):
        for columns in (width, width // 2):
            tiles = {"BJ": BJ, "BX": BX, "BU": max(1, columns // BX), "BL": BL}
            warps = 8 if BJ * columns >= 16384 or float32 else 4
            configs.append(Config(tiles, warps=warps, stages=2))
    return configs
