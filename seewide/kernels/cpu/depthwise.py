"""Large-kernel depthwise convolution on the CPU: PyTorch calls that select oneDNN's fast kernels.

oneDNN has two fast depthwise kernels; memory layout and padding decide which one runs:

* `jit_dw` (NCHW, or dilated): falls back to a GEMM, 8 to 60 times slower, when the padding
  exceeds its register block: 6 columns with AVX-512, 4 with AVX2. An input that is
  padded beforehand avoids this.
* `brdgmm_dw` (channels last, undilated): takes any padding and skips the taps that fall into it.
  With AVX-512 its register blocking is poor for 11 and 13 columns (2 to 3 times slower than 15),
  unless the channels are 1 or 3 vectors; so other such kernels get columns of zeros.

Large kernels on large maps are convolved by Fourier transforms (fourier.py).

Both gradients are depthwise convolutions again, which torch would otherwise compute with loops
10 to 40 times slower:

    dx = conv(dy, w flipped)         dw[c] = sum_n conv(padded x[n, c], dy[n, c] as the kernel)

Measured figures: benchmarks/results. Legend: N batch, C channels, H x W map, kh x kw kernel.
"""

from __future__ import annotations

import os

import torch
import torch.nn.functional as F
from torch import Tensor

from .._plain import needs_plain_operators
from . import fourier
from .opaque import opaque

ONEDNN = torch.backends.mkldnn.is_available()
AVX512 = (
    "AVX512" in torch.backends.cpu.get_cpu_capability()
    and "AVX2" not in os.environ.get("ONEDNN_MAX_CPU_ISA", "").upper()
)
DIRECT_PADDING = 6 if AVX512 else 4  # columns of padding that jit_dw takes itself
FOURIER_PRICE = 110 if AVX512 else 55  # multiply-adds that take as long as a transformed point
# Taps; smaller kernels are not looked at, and none where transforms are not MKL's, never measured.
FOURIER_FROM = 15 * 15 if torch.backends.mkl.is_available() else 1 << 30
PADDED_FROM = 48 * 48  # AVX2: from this map on, jit_dw on padded input beats brdgmm_dw, up to 1.3


def cannot(x: Tensor, *rest) -> str | None:
    """None if this file can compute on `x`, else the reason in a sentence."""
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}, this backend runs on cpu"
    return needs_plain_operators()


def prefer(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> bool:
    """Whether this file is faster than torch's own convolution."""
    return ONEDNN and not _torch_is_faster(x, weight, dilation)


def slower(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> str:
    """Why `prefer` is False, for `explain`."""
    if not ONEDNN:
        return "this PyTorch was built without oneDNN, whose kernels this backend calls"
    return "torch's own 3 x 3 kernel is as fast, and its gradients up to 5 times faster"


def _torch_is_faster(x: Tensor, weight: Tensor, dilation: int) -> bool:
    H, W = x.shape[2:]
    square = weight.shape[2:] == (3, 3) and dilation == 1
    return square and x.dtype == torch.float32 and H > 2 < W


def plan(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> str:
    """How this shape is computed: "fourier", "direct", "padded" or "channels_last"."""
    if x.numel() == 0:
        return "direct"
    N, _, H, W = x.shape
    if dilation == 1 and fourier_pays(x, weight.shape[2], weight.shape[3], 2 + 1 / N):
        return "fourier"
    columns = min(weight.shape[3] // 2, (W - 1) // dilation) * dilation
    if dilation > 1:  # brdgmm_dw has no dilation
        return "direct" if columns <= DIRECT_PADDING else "padded"
    if is_channels_last(x):
        return "channels_last"
    if columns <= DIRECT_PADDING:
        return "direct"
    return "channels_last" if AVX512 or H * W < PADDED_FROM else "padded"


def work(x: Tensor, kh: int, kw: int) -> float:
    """Multiply-adds per pixel, undilated, of the taps inside the map, or of transforms."""
    met = _met(x.shape[2], kh) * _met(x.shape[3], kw)
    if kh * kw < FOURIER_FROM:
        return met
    return min(met, FOURIER_PRICE * (2 + 1 / x.shape[0]) * fourier.points(x, kh, kw))


def _met(length: int, taps: int) -> float:
    """How many of the taps lie inside a map of this length, averaged over the outputs."""
    r = min(taps // 2, length - 1)
    return 2 * r + 1 - r * (r + 1) / length


def fourier_pays(x: Tensor, kh: int, kw: int, transforms: float) -> bool:
    """Whether that many transforms of each plane take less time than the taps."""
    if kh * kw < FOURIER_FROM:
        return False
    taps = _met(x.shape[2], kh) * _met(x.shape[3], kw)
    return FOURIER_PRICE * transforms * fourier.points(x, kh, kw) < taps


def depthwise_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    """`seewide.ops.depthwise_conv2d` on the CPU; the result has the memory layout of `x`."""
    if x.dtype in (torch.bfloat16, torch.float16):
        # As fast as oneDNN's own bf16 where the CPU has it (within 5%), 20 to 100 times faster
        # where it has not, and rounded once.
        bias = bias if bias is None else bias.float()
        return depthwise_conv2d(x.float(), weight.float(), bias, dilation).to(x.dtype)
    trained = x.requires_grad or weight.requires_grad or (bias is not None and bias.requires_grad)
    if torch.is_grad_enabled() and trained:
        return _Depthwise.apply(x, weight, bias, dilation)
    return _forward(x, weight, bias, dilation)


def is_channels_last(x: Tensor) -> bool:
    """Whether `x` is channels_last and not also contiguous."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def crop(x: Tensor, weight: Tensor, dilation: int) -> Tensor:
    """Without the taps that meet only padding: 51 x 51 on a 14 x 14 map uses 27 x 27 of them."""
    for axis in (2, 3):
        size = weight.shape[axis]
        used = _used(x.shape[axis], size, dilation)
        if used < size:
            weight = weight.narrow(axis, (size - used) // 2, used)
    return weight


def _used(length: int, taps: int, dilation: int) -> int:
    """How many of the taps along an axis meet a map of this length."""
    return min(taps, 2 * ((length - 1) // dilation) + 1)


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format of `x`, which its result must have."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format


@opaque(
    "depthwise_conv2d_cpu",
    "(Tensor x, Tensor weight, Tensor? bias, int dilation) -> Tensor",
    lambda x, weight, bias, dilation: torch.empty_like(x, memory_format=layout_of(x)),
)
def _forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    if x.numel() == 0:  # the library calls below do not all support empty maps
        return torch.empty_like(x, memory_format=layout_of(x))
    weight = crop(x, weight, dilation)
    C, _, kh, kw = weight.shape
    ph, pw = kh // 2 * dilation, kw // 2 * dilation
    method = plan(x, weight, bias, dilation)
    if x.shape[0] == 1 and x.stride(0) == 0:  # from Inductor; hides channels last from oneDNN
        x = x.as_strided(x.shape, (x[0].numel(), *x.stride()[1:]))
    if method == "fourier":
        y = fourier.convolve(x, weight, bias)
    elif method == "padded":
        y = F.conv2d(F.pad(x, (pw, pw, ph, ph)), weight, bias, dilation=dilation, groups=C)
    elif method == "direct":
        y = F.conv2d(x, weight, bias, padding=(ph, pw), dilation=dilation, groups=C)
    else:
        poor_blocks = AVX512 and kw in (11, 13) and -(-C // 16) not in (1, 3)
        if poor_blocks and kh > 5:
            weight, pw = F.pad(weight, (7 - pw, 7 - pw)), 7
        x_last = x.contiguous(memory_format=torch.channels_last)
        y = F.conv2d(x_last, weight, bias, padding=(ph, pw), groups=C)
    return y.contiguous(memory_format=layout_of(x))


class _Depthwise(torch.autograd.Function):
    """The convolution with both gradients as forward convolutions; differentiable any number
    of times, since the gradients are made of differentiable calls."""

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
        return _forward(x, weight, bias, dilation)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _, ctx.dilation = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        if ctx.needs_input_grad[0]:
            dy = dy.contiguous(memory_format=layout_of(x))
            dx = depthwise_conv2d(dy, weight.flip(2, 3), None, ctx.dilation)
        if ctx.needs_input_grad[1]:
            dw = weight_gradient(x, dy, weight.shape[2], weight.shape[3], ctx.dilation)
        if ctx.needs_input_grad[2]:
            db = dy.sum((0, 2, 3))
        return dx, dw, db, None


@opaque(
    "depthwise_weight_gradient_cpu",
    "(Tensor x, Tensor dy, int kh, int kw, int dilation) -> Tensor",
    lambda x, dy, kh, kw, dilation: x.new_empty(x.shape[1], 1, kh, kw),
)
def weight_gradient(x: Tensor, dy: Tensor, kh: int, kw: int, dilation: int) -> Tensor:
    """dw (C, 1, kh, kw), zero at the taps that meet only padding."""
    if x.numel() == 0:
        return x.new_zeros(x.shape[1], 1, kh, kw)
    used = _used(x.shape[2], kh, dilation), _used(x.shape[3], kw, dilation)
    dw = _used_weight_gradient(x, dy, *used, dilation)
    if used == (kh, kw):
        return dw
    rows, columns = (kh - used[0]) // 2, (kw - used[1]) // 2
    return F.pad(dw, (columns, columns, rows, rows))


def _used_weight_gradient(x: Tensor, dy: Tensor, kh: int, kw: int, dilation: int) -> Tensor:
    """N * C maps, each convolved with its own dy; the dilation becomes the stride."""
    if kh == kw == 1:  # such as any kernel cropped to a 1 x 1 map; oneDNN has nothing fast for it
        return (x * dy).sum((0, 2, 3)).reshape(-1, 1, 1, 1)
    if dilation == 1 and fourier_pays(
        x, kh, kw, 1.5
    ):  # 1.5 instead of 2 + 1 / N: the direct gradient is slower
        return fourier.weight_gradient(x, dy, kh, kw)
    N, C, H, W = x.shape
    ph, pw = kh // 2 * dilation, kw // 2 * dilation
    x = x.contiguous()
    if pw > min(DIRECT_PADDING, kw):  # the register block is no wider than the output, kw columns
        x, ph, pw = F.pad(x, (pw, pw, ph, ph)), 0, 0
    maps, kernels = x.reshape(1, N * C, *x.shape[2:]), dy.reshape(N * C, 1, H, W)
    dw = F.conv2d(maps, kernels, padding=(ph, pw), stride=dilation, groups=N * C)
    return dw.reshape(N, C, kh, kw).sum(0).unsqueeze(1)
