"""Small-kernel aggregation on the CPU: k * k in-place multiply-adds in the layout of x.

The operator is a trilinear form, y . A(x, w) = sum of y * w * shifted x. Its two gradients are
trilinear too, and three functions are each other's derivatives, to any order:

    y  = A(x, w)     dx = S(dy, w) (scatter)     dw = C(dy, x) (correlate)

Autograd over the plain formulation would write k * k zero maps for the gradients of its slices.
Legend: N batch, C = R * G channels (channel r * G + g uses weight set g), H x W map, T = k * k.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._plain import needs_plain_operators
from .depthwise import is_channels_last, layout_of
from .opaque import opaque


def kernel_size(taps: int) -> int:
    """k, of k * k."""
    return int(taps**0.5 + 0.5)


def cannot(x: Tensor, weight: Tensor) -> str | None:
    """None if this file can compute on `x`, else the reason in a sentence."""
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}, this backend runs on cpu"
    return needs_plain_operators()


def prefer(x: Tensor, weight: Tensor) -> bool:
    """Whether this file is faster than the plain formulation."""
    return not torch.compiler.is_compiling()


def slower(x: Tensor, weight: Tensor) -> str:
    """Why `prefer` is False, for `explain`."""
    return "the compiler fuses the plain formulation into one loop of its own"


def small_kernel_aggregation(x: Tensor, weight: Tensor) -> Tensor:
    """`seewide.ops.small_kernel_aggregation` on the CPU; the result has the layout of `x`."""
    if x.dtype in (torch.bfloat16, torch.float16):  # one rounding instead of k * k
        return small_kernel_aggregation(x.float(), weight.float()).to(x.dtype)
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Aggregate.apply(x, weight)
    return _aggregate(x, weight)


@opaque(
    "aggregation_cpu",
    "(Tensor x, Tensor weight) -> Tensor",
    lambda x, weight: torch.empty_like(x),
)
def _aggregate(x: Tensor, weight: Tensor) -> Tensor:
    G, T = weight.shape[1:3]
    taps = _taps_first(weight, x)
    windows = _windows(_pad(x, T), G, T)
    y = torch.empty_like(x)
    y_sets = y.unflatten(1, (-1, G))
    torch.mul(windows[0], taps[0], out=y_sets)
    for window, tap in zip(windows[1:], taps[1:], strict=True):
        y_sets.addcmul_(window, tap)
    return y


def _scatter(y: Tensor, weight: Tensor) -> Tensor:
    (G, T), (H, W) = weight.shape[1:3], y.shape[2:]
    p = kernel_size(T) // 2
    x_padded = torch.zeros_like(_pad(y, T))
    y_sets = y.unflatten(1, (-1, G))
    for window, tap in zip(_windows(x_padded, G, T), _taps_first(weight, y), strict=True):
        window.addcmul_(y_sets, tap)
    return x_padded[:, :, p : p + H, p : p + W]


@opaque(
    "aggregation_scatter_cpu",
    "(Tensor y, Tensor weight) -> Tensor",
    lambda y, weight: torch.empty_like(y, memory_format=layout_of(y)),
)
def _dense_scatter(y: Tensor, weight: Tensor) -> Tensor:
    """`_scatter`, with memory of its own, as the compiler expects of an operator."""
    return _scatter(y, weight).contiguous(memory_format=layout_of(y))


@opaque(
    "aggregation_correlate_cpu",
    "(Tensor y, Tensor x, int G, int T) -> Tensor",
    lambda y, x, G, T: y.new_empty(y.shape[0], G, T, *y.shape[2:]),
)
def _correlate(y: Tensor, x: Tensor, G: int, T: int) -> Tensor:
    y_sets = y.unflatten(1, (-1, G))
    taps = [(window * y_sets).sum(1) for window in _windows(_pad(x, T), G, T)]
    return torch.stack(taps, 2).contiguous()


class _Aggregate(torch.autograd.Function):
    """y = A(x, w)"""

    @staticmethod
    def forward(x: Tensor, weight: Tensor) -> Tensor:
        return _aggregate(x, weight)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight = ctx.saved_tensors
        G, T = weight.shape[1:3]
        dy = dy.contiguous(memory_format=layout_of(x))
        dx = _Scatter.apply(dy, weight) if ctx.needs_input_grad[0] else None
        dw = _Correlate.apply(dy, x, G, T) if ctx.needs_input_grad[1] else None
        return dx, dw


class _Scatter(torch.autograd.Function):
    """x = S(y, w): add each pixel of y to its neighbours, weighted by its own kernel."""

    @staticmethod
    def forward(y: Tensor, weight: Tensor) -> Tensor:
        return (_dense_scatter if torch.compiler.is_compiling() else _scatter)(y, weight)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, dx: Tensor):
        y, weight = ctx.saved_tensors
        G, T = weight.shape[1:3]
        dy = _Aggregate.apply(dx, weight) if ctx.needs_input_grad[0] else None
        dw = _Correlate.apply(y, dx, G, T) if ctx.needs_input_grad[1] else None
        return dy, dw


class _Correlate(torch.autograd.Function):
    """w = C(y, x): for each tap, y times the shifted x, summed over the channels of a set."""

    @staticmethod
    def forward(y: Tensor, x: Tensor, G: int, T: int) -> Tensor:
        return _correlate(y, x, G, T)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs[:2])

    @staticmethod
    def backward(ctx, dw: Tensor):
        y, x = ctx.saved_tensors
        dy = _Aggregate.apply(x, dw) if ctx.needs_input_grad[0] else None
        dx = _Scatter.apply(y, dw) if ctx.needs_input_grad[1] else None
        return dy, dx, None, None


def _pad(x: Tensor, T: int) -> Tensor:
    p = kernel_size(T) // 2
    return F.pad(x, (p, p, p, p))


def _windows(x_padded: Tensor, G: int, T: int) -> list[Tensor]:
    """T views (N, R, G, H, W) of the padded x, one per tap."""
    k = kernel_size(T)
    H, W = x_padded.shape[2] - k + 1, x_padded.shape[3] - k + 1
    sets = x_padded.unflatten(1, (-1, G))
    return [sets[..., u : u + H, v : v + W] for u in range(k) for v in range(k)]


def _taps_first(weight: Tensor, x: Tensor) -> Tensor:
    """(T, N, 1, G, H, W), each tap with the memory layout of x.

    A channels-last convolution makes weights whose taps alternate; without the copy every read
    of them skips T - 1 others, and a call takes 2 to 4 times as long.
    """
    taps = weight.permute(2, 0, 1, 3, 4)
    if is_channels_last(x):
        taps = taps.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
    return taps.unsqueeze(2)
