"""Per-sample depthwise convolution on the CPU: N * C planes, each with a kernel of its own.

One sample of N * C channels with fixed weights would give the same, and `kernels.cpu.depthwise`
computes it; but that converts such wide inputs to channels last, which costs as much as the
convolution. Here the planes stay as they are and are padded beforehand, so that oneDNN's `jit_dw`
runs without padding of its own; large kernels on small maps go through Fourier transforms. Times
for (8, 256, 32, 32), forward and backward, one thread of an AVX2 machine, against the call of
`kernels.cpu.depthwise` (ms):

    kernel    7    13    15    17    21    31
    here     27    69   122   141   161   160
    there    23   160   181   210   332   190

Legend: P = N * C planes, H x W map, kh x kw kernel.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from .._plain import needs_plain_operators
from . import depthwise, fourier
from .opaque import opaque


def cannot(x: Tensor, kernel: Tensor) -> str | None:
    """None if this file can compute the convolution, else one sentence that says why not."""
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}, this backend runs on cpu"
    if not depthwise.ONEDNN:
        return "this PyTorch was built without oneDNN"
    if x.numel() == 0 or kernel.numel() == 0:
        return "the input or the kernel is empty"
    return needs_plain_operators()


def plan(x: Tensor, kernel: Tensor) -> str:
    """How these shapes are computed: "direct", "padded" or "fourier"."""
    kh, kw = kernel.shape[2:]
    if depthwise.fourier_pays(x, kh, kw, 3):
        return "fourier"
    columns = min(kw // 2, x.shape[3] - 1)
    return "direct" if columns <= depthwise.DIRECT_PADDING else "padded"


def planes_conv2d(x_1PHW: Tensor, kernel_P1kk: Tensor) -> Tensor:
    """(1, P, H, W) and (P, 1, kh, kw), odd, to (1, P, H, W): same padding, no flip."""
    x, kernel = x_1PHW, kernel_P1kk
    if x.dtype in (torch.bfloat16, torch.float16):
        return planes_conv2d(x.float(), kernel.float()).to(x.dtype)
    kernel = depthwise.crop(x, kernel, 1)
    if torch.is_grad_enabled() and (x.requires_grad or kernel.requires_grad):
        return _PlanesConv.apply(x, kernel)
    return _forward(x, kernel)


@opaque(
    "planes_conv2d_cpu",
    "(Tensor x, Tensor kernel) -> Tensor",
    lambda x, kernel: torch.empty_like(x, memory_format=torch.contiguous_format),
)
def _forward(x: Tensor, kernel: Tensor) -> Tensor:
    P, _, kh, kw = kernel.shape
    x = x.contiguous()
    how = plan(x, kernel)
    if how == "fourier":
        return fourier.convolve(x, kernel, None)
    if how == "direct":
        return F.conv2d(x, kernel, padding=(kh // 2, kw // 2), groups=P)
    return F.conv2d(F.pad(x, (kw // 2, kw // 2, kh // 2, kh // 2)), kernel, groups=P)


class _PlanesConv(torch.autograd.Function):
    """Both gradients are convolutions of the same kind, and so differentiable again."""

    @staticmethod
    def forward(x: Tensor, kernel: Tensor) -> Tensor:
        return _forward(x, kernel)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, kernel = ctx.saved_tensors
        dx = dkernel = None
        if ctx.needs_input_grad[0]:
            dx = planes_conv2d(dy.contiguous(), kernel.flip(2, 3))
        if ctx.needs_input_grad[1]:
            kh, kw = kernel.shape[2:]
            dkernel = depthwise.weight_gradient(x, dy.contiguous(), kh, kw, 1)
        return dx, dkernel
