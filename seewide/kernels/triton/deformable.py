"""DCNv3 on the GPU: every thread gathers for its own pixel and group.

    y[p, g] = sum over k of m[p, g, k] * x[n, g](p_k)        (points p_k: `seewide.ops.deformable`)

A row of the launch is a pixel and a group: the D channels of a group lie side by side, so that a
thread reads 8 halves, or 4 floats, of each neighbour at once. The four neighbours of a point and
their shares, with zeros outside the map:

    x(p) = (1 - a)(1 - b) x00 + (1 - a) b x01 + a (1 - b) x10 + a b x11      a down, b right of x00

Gradients, with s = <dy[p, g], x>, the products of the row's slope with each neighbour:

    dm_k = s(p_k)       doffset_k = scale * m_k * (slope of s along columns, along rows)
    dx at each neighbour += m_k * share * dy[p, g]

Many rows read a pixel, so dx is added up by atomics, in float32 and in no fixed order. Under a
softmax, dm_k = m_k (s(p_k) - sum over l of m_l s(p_l)), and that sum is <dy, y>.

Coordinates, shares and sums are float32.
Legend: N batch, H x W map, C = G D channels, K * K taps, P = H' W' G rows of an image.
"""

import math
from collections.abc import Callable

import torch
import triton
import triton.language as tl
from torch import Tensor

from .launch import Config, choose, launch, operator


def cannot(x: Tensor, offset: Tensor, *rest) -> str | None:
    """None if this file can compute the sum, else the reason in a sentence."""
    if max(math.prod(x.shape[1:]), math.prod(offset.shape[1:])) >= 2**31:
        return "the offsets of one image must be fewer than 2**31"
    if torch.are_deterministic_algorithms_enabled() and torch.is_grad_enabled() and x.requires_grad:
        return "torch.use_deterministic_algorithms is on, and dx is added up in no fixed order"
    return None


def dcnv3(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int,
    groups: int,
    offset_scale: float,
    stride: int,
    dilation: int,
    softmax: bool,
) -> Tensor:
    """`seewide.ops.dcnv3` on the GPU."""
    return _dcnv3(x, offset, mask, kernel_size, groups, offset_scale, stride, dilation, softmax)


@triton.jit
def _row(TILES, P, Wo, G: tl.constexpr, BP: tl.constexpr):
    """Image, rows within it, whether they exist, and their line, column and group."""
    tile = tl.program_id(0)
    p = (tile % TILES) * BP + tl.arange(0, BP)
    pixel = p // G
    return (tile // TILES).to(tl.int64), p, p < P, pixel // Wo, pixel % Wo, p % G


@triton.jit
def _point(
    offsets, t, exists, line, column, H, W, offset_scale,
    K: tl.constexpr, STRIDE: tl.constexpr, DILATION: tl.constexpr,
):  # fmt: skip
    """Upper left neighbour of tap t, and how far down and right of it the point is."""
    right = tl.load(offsets + 2 * t, mask=exists, other=0.0).to(tl.float32)
    down = tl.load(offsets + 2 * t + 1, mask=exists, other=0.0).to(tl.float32)
    j = column * STRIDE + offset_scale * ((t // K - K // 2) * DILATION + right)
    i = line * STRIDE + offset_scale * ((t % K - K // 2) * DILATION + down)
    left, top = tl.floor(j), tl.floor(i)
    # Beyond -2 and W nothing is read; clamped, infinity and NaN give a valid integer.
    j0 = tl.minimum(tl.maximum(left, -2.0), W + 0.0).to(tl.int32)
    i0 = tl.minimum(tl.maximum(top, -2.0), H + 0.0).to(tl.int32)
    return i0, j0, i - top, j - left


@triton.jit
def _softmax_of(masks, exists, T: tl.constexpr, BP: tl.constexpr, BT: tl.constexpr):
    """Largest mask of each row, and the sum of exp(mask - largest)."""
    t = tl.arange(0, BT)[None, :]
    known = exists[:, None] & (t < T)
    m = tl.load(masks[:, None] + t, mask=known, other=float("-inf")).to(tl.float32)
    m = tl.where(exists[:, None], m, 0.0)
    largest = tl.max(m, 1)
    return largest, tl.sum(tl.where(t < T, tl.exp(m - largest[:, None]), 0.0), 1)


@triton.jit
def _dcnv3_kernel(
    x, offset, mask, y, H, W, Wo, P, TILES, offset_scale,
    K: tl.constexpr, G: tl.constexpr, D: tl.constexpr, STRIDE: tl.constexpr,
    DILATION: tl.constexpr, SOFTMAX: tl.constexpr, BT: tl.constexpr,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = K * K
    C: tl.constexpr = G * D
    n, p, exists, line, column, g = _row(TILES, P, Wo, G, BP)
    d = tl.arange(0, BD)[None, :]
    real = exists[:, None] & (d < D)
    x_group = x + n * H * W * C + g * D
    offsets = offset + n * P * (2 * T) + p * (2 * T)
    masks = mask + n * P * T + p * T
    if SOFTMAX:
        largest, total = _softmax_of(masks, exists, T, BP, BT)
    sums = tl.zeros((BP, BD), tl.float32)
    for t in range(T):
        i, j, a, b = _point(
            offsets, t, exists, line, column, H, W, offset_scale, K, STRIDE, DILATION
        )
        m = tl.load(masks + t, mask=exists, other=0.0).to(tl.float32)
        if SOFTMAX:
            m = tl.exp(m - largest) / total
        upper, lower = exists & (i >= 0) & (i < H), exists & (i >= -1) & (i < H - 1)
        left, right = (j >= 0) & (j < W), (j >= -1) & (j < W - 1)
        at = (x_group + (i * W + j) * C)[:, None] + d
        x00 = tl.load(at, mask=real & (upper & left)[:, None], other=0.0).to(tl.float32)
        x01 = tl.load(at + C, mask=real & (upper & right)[:, None], other=0.0).to(tl.float32)
        x10 = tl.load(at + W * C, mask=real & (lower & left)[:, None], other=0.0).to(tl.float32)
        x11 = tl.load(at + W * C + C, mask=real & (lower & right)[:, None], other=0.0)
        x11 = x11.to(tl.float32)
        below, above = m * a, m * (1 - a)
        sums += x00 * (above * (1 - b))[:, None] + x01 * (above * b)[:, None]
        sums += x10 * (below * (1 - b))[:, None] + x11 * (below * b)[:, None]
    tl.store(y + n * P * D + p[:, None] * D + d, sums.to(y.dtype.element_ty), mask=real)


@triton.jit
def _gradients_kernel(
    x, offset, mask, y, dy, dx, doffset, dmask, H, W, Wo, P, TILES, offset_scale,
    K: tl.constexpr, G: tl.constexpr, D: tl.constexpr, STRIDE: tl.constexpr,
    DILATION: tl.constexpr, SOFTMAX: tl.constexpr, FOR_X: tl.constexpr, BT: tl.constexpr,
    BP: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    T: tl.constexpr = K * K
    C: tl.constexpr = G * D
    n, p, exists, line, column, g = _row(TILES, P, Wo, G, BP)
    d = tl.arange(0, BD)[None, :]
    real = exists[:, None] & (d < D)
    group = n * H * W * C + g * D
    points = n * P * T + p * T
    row = n * P * D + p[:, None] * D + d
    slope = tl.load(dy + row, mask=real, other=0.0).to(tl.float32)
    if SOFTMAX:
        largest, total = _softmax_of(mask + points, exists, T, BP, BT)
        mean = tl.sum(slope * tl.load(y + row, mask=real, other=0.0).to(tl.float32), 1)
    for t in range(T):
        i, j, a, b = _point(
            offset + 2 * points, t, exists, line, column, H, W, offset_scale, K, STRIDE, DILATION
        )
        m = tl.load(mask + points + t, mask=exists, other=0.0).to(tl.float32)
        if SOFTMAX:
            m = tl.exp(m - largest) / total
        upper, lower = exists & (i >= 0) & (i < H), exists & (i >= -1) & (i < H - 1)
        left, right = (j >= 0) & (j < W), (j >= -1) & (j < W - 1)
        at = (group + (i * W + j) * C)[:, None] + d
        in00, in01 = real & (upper & left)[:, None], real & (upper & right)[:, None]
        in10, in11 = real & (lower & left)[:, None], real & (lower & right)[:, None]
        s00 = tl.sum(slope * tl.load(x + at, mask=in00, other=0.0).to(tl.float32), 1)
        s01 = tl.sum(slope * tl.load(x + at + C, mask=in01, other=0.0).to(tl.float32), 1)
        s10 = tl.sum(slope * tl.load(x + at + W * C, mask=in10, other=0.0).to(tl.float32), 1)
        s11 = tl.sum(slope * tl.load(x + at + W * C + C, mask=in11, other=0.0).to(tl.float32), 1)
        s = (1 - a) * ((1 - b) * s00 + b * s01) + a * ((1 - b) * s10 + b * s11)
        by_right = m * ((1 - a) * (s01 - s00) + a * (s11 - s10))
        by_down = m * ((1 - b) * (s10 - s00) + b * (s11 - s01))
        if SOFTMAX:
            s = m * (s - mean)
        tl.store(dmask + points + t, s.to(dmask.dtype.element_ty), mask=exists)
        step = doffset + 2 * points + 2 * t
        tl.store(step, (offset_scale * by_right).to(doffset.dtype.element_ty), mask=exists)
        tl.store(step + 1, (offset_scale * by_down).to(doffset.dtype.element_ty), mask=exists)
        if FOR_X:
            # At zero offsets, where training starts, three of four shares are zero: not written.
            b00, b01 = m * (1 - a) * (1 - b), m * (1 - a) * b
            b10, b11 = m * a * (1 - b), m * a * b
            w00, w01 = in00 & (b00 != 0.0)[:, None], in01 & (b01 != 0.0)[:, None]
            w10, w11 = in10 & (b10 != 0.0)[:, None], in11 & (b11 != 0.0)[:, None]
            tl.atomic_add(dx + at, slope * b00[:, None], mask=w00, sem="relaxed")
            tl.atomic_add(dx + at + C, slope * b01[:, None], mask=w01, sem="relaxed")
            tl.atomic_add(dx + at + W * C, slope * b10[:, None], mask=w10, sem="relaxed")
            tl.atomic_add(dx + at + W * C + C, slope * b11[:, None], mask=w11, sem="relaxed")


def _configs(D: int) -> list[Config]:
    """A thread holds 8 channels: of one row if D is 8, of half a row if it is 16."""
    BD = triton.next_power_of_2(D)
    return [
        Config({"BP": max(1, 256 * warps // BD), "BD": BD}, warps=warps, stages=1)
        for warps in (4, 2, 8)
    ]


def _start(
    kernel,
    name: str,
    tensors: tuple[Tensor, ...],
    geometry: tuple,
    before: Callable[[], object] = lambda: None,
    **flags,
) -> None:
    """Launch with `tensors`, x and offset the first of them; `before` each, also while tuning."""
    x, offset = tensors[:2]
    kernel_size, groups, offset_scale, stride, dilation, softmax = geometry
    (N, H, W, C), (Ho, Wo) = x.shape, offset.shape[1:3]
    P, D = Ho * Wo * groups, C // groups

    def run(config: Config) -> None:
        before()
        tiles = triton.cdiv(P, config.tiles["BP"])
        launch(
            kernel, N * tiles, *tensors, H, W, Wo, P, tiles, float(offset_scale),
            config=config, K=kernel_size, G=groups, D=D, STRIDE=stride, DILATION=dilation,
            SOFTMAX=softmax, BT=triton.next_power_of_2(kernel_size**2), **flags,
        )  # fmt: skip

    shapes = (x.dtype, kernel_size, D, softmax, *flags.values(), triton.next_power_of_2(N * P))
    run(choose(name, shapes, _configs(D), run, x.device))


GEOMETRY = "int kernel_size, int groups, float offset_scale, int stride, int dilation, bool softmax"


@operator(
    "dcnv3",
    f"(Tensor x, Tensor offset, Tensor mask, {GEOMETRY}) -> Tensor",
    lambda x, offset, *rest: x.new_empty(*offset.shape[:3], x.shape[3]),
)
def _dcnv3(x: Tensor, offset: Tensor, mask: Tensor, *geometry) -> Tensor:
    y = x.new_empty(*offset.shape[:3], x.shape[3])
    tensors = (x.contiguous(), offset.contiguous(), mask.contiguous(), y)
    _start(_dcnv3_kernel, "dcnv3", tensors, geometry)
    return y


@operator(
    "dcnv3_gradients",
    "(Tensor x, Tensor offset, Tensor mask, Tensor y, Tensor dy, bool for_x, "
    f"{GEOMETRY}) -> (Tensor, Tensor, Tensor)",
    lambda x, offset, mask, y, dy, for_x, *geometry: (
        x.new_empty(x.shape if for_x else 0),
        offset.new_empty(offset.shape),
        mask.new_empty(mask.shape),
    ),
)
def _gradients(
    x: Tensor, offset: Tensor, mask: Tensor, y: Tensor, dy: Tensor, for_x: bool, *geometry
) -> tuple[Tensor, Tensor, Tensor]:
    dx = torch.empty(x.shape if for_x else 0, dtype=torch.float32, device=x.device)
    doffset, dmask = offset.new_empty(offset.shape), mask.new_empty(mask.shape)
    read = (x, offset, mask, y, dy)
    tensors = (*(t.contiguous() for t in read), dx, doffset, dmask)
    name = "dcnv3 gradients"
    _start(_gradients_kernel, name, tensors, geometry, before=dx.zero_, FOR_X=for_x)
    return dx.to(x.dtype), doffset, dmask


def _save(ctx, inputs, output) -> None:
    x, offset, mask, *ctx.geometry = inputs
    ctx.save_for_backward(x, offset, mask, output if ctx.geometry[-1] else x.new_empty(0))


def _backward(ctx, dy: Tensor):
    x, offset, mask, y = ctx.saved_tensors
    for_x = ctx.needs_input_grad[0]
    dx, doffset, dmask = _gradients(x, offset, mask, y, dy, for_x, *ctx.geometry)
    return (dx if for_x else None, doffset, dmask, *[None] * len(ctx.geometry))


_dcnv3.register_autograd(_backward, setup_context=_save)
