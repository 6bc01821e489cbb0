"""Small-kernel aggregation as LSNet's authors published it, in Triton, to be measured beside ours.

Written from what their kernel does (arXiv 2503.23135, model/ska.py), not from its text: a program
takes 1024 elements of the flat result, finds the image, channel and pixel of each by divisions, and
reads the pixel's K * K weights anew for each channel. Products are of the tensors' own type, in
bfloat16's case of float64. The gradients of x and of the weights are two more kernels of the kind.

With a checkout of their repository (`--lsnet`) their own code stands beside it.

Legend: N batch, C channels in G sets, H x W map, r = K // 2.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

BLOCK = 1024


@triton.jit
def _sum_kernel(
    x, w, y, ELEMENTS, C, G, H, W,
    K: tl.constexpr, TURNED: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """y[n, c, i, j] = sum of w[n, c % G, t, i, j] * x[n, c, i + u - r, j + v - r], t = u K + v.

    If TURNED, of w[n, c % G, t, i - u + r, j - v + r] * x[n, c, i - u + r, j - v + r].
    """
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    exists = index < ELEMENTS
    j, i = index % W, index // W % H
    c, n = index // (W * H) % C, index // (W * H * C)
    total = tl.zeros((BLOCK,), WIDE)
    for t in tl.static_range(K * K):
        down, right = t // K - K // 2, t % K - K // 2
        if TURNED:
            row, column = i - down, j - right
        else:
            row, column = i + down, j + right
        inside = exists & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        pixel = tl.load(x + (n * C + c) * H * W + row * W + column, mask=inside, other=0.0)
        start = w + ((n * G + c % G) * (K * K) + t) * H * W
        if TURNED:
            tap = tl.load(start + row * W + column, mask=inside, other=0.0)
        else:
            tap = tl.load(start + i * W + j, mask=exists, other=0.0)
        total += (pixel.to(WIDE) * tap.to(WIDE)).to(WIDE)
    tl.store(y + index, total.to(y.dtype.element_ty), mask=exists)


@triton.jit
def _weight_kernel(
    x, dy, dw, ELEMENTS, C, G, H, W,
    K: tl.constexpr, WIDE: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dw[n, g, t, i, j]: over the channels of set g, dy[i, j] times the pixel that tap t meets."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)  # of (n, g, i, j)
    exists = index < ELEMENTS
    j, i = index % W, index // W % H
    g, n = index // (W * H) % G, index // (W * H * G)
    for t in tl.static_range(K * K):
        row, column = i + (t // K - K // 2), j + (t % K - K // 2)
        inside = exists & (row >= 0) & (row < H) & (column >= 0) & (column < W)
        total = tl.zeros((BLOCK,), WIDE)
        for first in range(0, C, G):
            plane = (n * C + first + g) * H * W
            pixel = tl.load(x + plane + row * W + column, mask=inside, other=0.0)
            slope = tl.load(dy + plane + i * W + j, mask=exists, other=0.0)
            total += (pixel.to(WIDE) * slope.to(WIDE)).to(WIDE)
        place = dw + ((n * G + g) * (K * K) + t) * H * W + i * W + j
        tl.store(place, total.to(dw.dtype.element_ty), mask=exists)


class _Aggregation(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _sum(x, weight, turned=False)

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        dy = dy.contiguous()
        (_, C, H, W), G = x.shape, weight.shape[1]
        dw = torch.empty_like(weight)
        elements = weight.shape[0] * G * H * W
        _weight_kernel[(triton.cdiv(elements, BLOCK),)](
            x, dy, dw, elements, C, G, H, W, K=_size(weight), WIDE=_wide(x), BLOCK=BLOCK
        )
        return _sum(dy, weight, turned=True), dw


def _sum(x: Tensor, weight: Tensor, turned: bool) -> Tensor:
    (_, C, H, W), G = x.shape, weight.shape[1]
    y = torch.empty_like(x)
    _sum_kernel[(triton.cdiv(x.numel(), BLOCK),)](
        x, weight, y, x.numel(), C, G, H, W,
        K=_size(weight), TURNED=turned, WIDE=_wide(x), BLOCK=BLOCK,
    )  # fmt: skip
    return y


def _size(weight: Tensor) -> int:
    return round(weight.shape[2] ** 0.5)


def _wide(x: Tensor) -> tl.dtype:
    return {torch.bfloat16: tl.float64, torch.float16: tl.float16}.get(x.dtype, tl.float32)


def aggregation(x: Tensor, weight: Tensor) -> Tensor:
    """`seewide.ops.small_kernel_aggregation` by their kernel's plan; contiguous tensors."""
    return _Aggregation.apply(x, weight)
