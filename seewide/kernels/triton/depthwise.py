"""Large-kernel depthwise convolution on the GPU.

PyTorch runs it on the ordinary cores, with two loads for each product. Here

* many taps become products of matrices on the tensor cores (toeplitz.py), forward and backward;
* few taps stay on the ordinary cores, with their pixels in registers (direct.py), in the memory
  layout they come in. Where the two meet was read off the machine code of both, not yet off a
  clock.

The tensor cores' kernels read planes: a channels-last map is copied, and its result copied back.

The input's gradient is the convolution of dy by the kernel turned by 180 degrees, so the same
kernels make it; the weight's has its own. All three forms are linear in two arguments and each
other's derivatives:

    y = x * w        dx = dy * flip(w)        dw = correlate(x, dy)

Legend: N batch, C channels, H x W map, kh x kw taps.
"""

import torch
from torch import Tensor

from . import direct, toeplitz
from .launch import is_channels_last, layout_of, operator

# Most taps that are multiplied on the ordinary cores: float32 costs tensor cores three products,
# dilation the zeros between the taps, channels-last maps a copy into planes and back.
DIRECT_TAPS = {torch.float32: 81, torch.bfloat16: 25, torch.float16: 25}
DIRECT_TAPS_LAST = 81


def cannot(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> str | None:
    """None if this file can compute the convolution, else the reason in a sentence."""
    if x.shape[2] * x.shape[3] >= 2**31:
        return "a map must have fewer than 2**31 pixels"
    return None


def plan(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> str:
    """How this shape is computed: "direct", "direct, channels last" or "toeplitz"."""
    taps = weight.shape[2] * weight.shape[3]
    if is_channels_last(x) and taps <= DIRECT_TAPS_LAST and x[:1].numel() < 2**31:
        return "direct, channels last"
    return "direct" if taps <= DIRECT_TAPS[x.dtype] else "toeplitz"


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """`seewide.ops.depthwise_conv2d` on the GPU; the result has the memory layout of `x`."""
    return _convolve(x, weight, bias, dilation, False)


@operator(
    "depthwise_conv2d",
    "(Tensor x, Tensor weight, Tensor? bias, int dilation, bool flip) -> Tensor",
    lambda x, *rest: torch.empty_like(x, memory_format=layout_of(x)),
)
def _convolve(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int, flip: bool) -> Tensor:
    method = plan(x, weight, bias, dilation)
    if method == "direct, channels last":
        y = torch.empty_like(x, memory_format=torch.channels_last)
        direct.convolve_last(x, weight, bias, dilation, flip, y)
        return y
    y = torch.empty_like(x, memory_format=torch.contiguous_format)
    kernels = direct if method == "direct" else toeplitz
    kernels.convolve(x, weight, bias, dilation, flip, y)
    return y.contiguous(memory_format=layout_of(x))


@operator(
    "depthwise_weight_gradient",
    "(Tensor x, Tensor dy, int kh, int kw, int dilation) -> Tensor",
    lambda x, dy, kh, kw, dilation: x.new_empty(x.shape[1], 1, kh, kw),
)
def _correlate(x: Tensor, dy: Tensor, kh: int, kw: int, dilation: int) -> Tensor:
    return toeplitz.weight_gradient(x, dy, kh, kw, dilation).to(x.dtype)


def _save_convolution(ctx, inputs, output) -> None:
    x, weight, _, ctx.dilation, ctx.flip = inputs
    ctx.save_for_backward(x, weight)


def _backward_of_convolution(ctx, dy: Tensor):
    x, weight = ctx.saved_tensors
    dx = dw = db = None
    if ctx.needs_input_grad[0]:
        dx = _convolve(dy, weight, None, ctx.dilation, not ctx.flip)
    if ctx.needs_input_grad[1]:
        first, second = (dy, x) if ctx.flip else (x, dy)
        dw = _correlate(first, second, weight.shape[2], weight.shape[3], ctx.dilation)
    if ctx.needs_input_grad[2]:
        db = dy.sum((0, 2, 3))
    return dx, dw, db, None, None


def _save_correlation(ctx, inputs, output) -> None:
    x, dy, _, _, ctx.dilation = inputs
    ctx.save_for_backward(x, dy)


def _backward_of_correlation(ctx, ddw: Tensor):
    x, dy = ctx.saved_tensors
    by_x = _convolve(dy, ddw, None, ctx.dilation, True)
    return by_x, _convolve(x, ddw, None, ctx.dilation, False), None, None, None


_convolve.register_autograd(_backward_of_convolution, setup_context=_save_convolution)
_correlate.register_autograd(_backward_of_correlation, setup_context=_save_correlation)
