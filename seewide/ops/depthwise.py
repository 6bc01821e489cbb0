"""Large-kernel depthwise convolution.

    y[n, c, i, j] = bias[c] + sum over u, v of
                    weight[c, 0, u, v] * x[n, c, i + dilation * (u - kh // 2),
                                                 j + dilation * (v - kw // 2)]

with x zero outside the map: stride 1, as many outputs as inputs. The operator of RepLKNet
(arXiv 2203.06717), SLaK's strips (2207.03620), UniRepLKNet (2311.15599, section 3.1) and, after
expanding its shared weights, PeLK (2403.07589).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError
from ..kernels import triton
from ..kernels.cpu import depthwise as cpu
from ._dispatch import Backend, Operator, autocasts, reference_backend, run_without_autocast


def depthwise_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1
) -> Tensor:
    """Depthwise convolution, stride 1, same padding, any odd kernel size.

    Args:
        x: (N, C, H, W), floating point; contiguous or channels_last, as the result then is.
        weight: (C, 1, kh, kw), kh and kw odd, square or strip.
        bias: (C,) or None.
        dilation: distance between neighbouring taps, in pixels.

    Returns:
        (N, C, H, W), of the dtype of `x` (of the autocast dtype under autocast).

    Raises:
        InputError: an even kernel, shapes or dtypes that do not fit, a dilation below 1, or a
            forced backend that cannot run.

    Example:
        >>> depthwise_conv2d(torch.rand(2, 8, 14, 20), torch.rand(8, 1, 31, 31)).shape
        torch.Size([2, 8, 14, 20])
    """
    if torch.jit.is_scripting():  # TorchScript does not compile the dispatch
        padding = [weight.shape[2] // 2 * dilation, weight.shape[3] // 2 * dilation]
        return F.conv2d(x, weight, bias, [1, 1], padding, [dilation, dilation], x.shape[1])
    else:
        tensors = (x, weight) if bias is None else (x, weight, bias)
        if has_torch_function(tensors):  # fx proxies: one node in the traced graph
            return handle_torch_function(
                depthwise_conv2d, tensors, x, weight, bias=bias, dilation=dilation
            )
        if not torch.jit.is_tracing():  # a trace would record comparisons of sizes
            _check(x, weight, bias, dilation)
        return run_without_autocast(_operator, x, weight, bias, dilation)


def depthwise_conv2d_reference(
    x: Tensor, weight: Tensor, bias: Tensor | None = None, dilation: int = 1
) -> Tensor:
    """The definition: the sum over taps of the shifted padded input times the weight. Slow."""
    (H, W), (kh, kw) = x.shape[2:], weight.shape[2:]
    ph, pw = kh // 2 * dilation, kw // 2 * dilation
    x_padded = F.pad(x, (pw, pw, ph, ph))
    y = torch.zeros_like(x)
    for u in range(kh):
        for v in range(kw):
            top, left = u * dilation, v * dilation
            y = y + x_padded[:, :, top : top + H, left : left + W] * weight[:, :, u, v, None]
    return y if bias is None else y + bias[:, None, None]


def _stock(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> Tensor:
    kh, kw = weight.shape[2:]
    padding = (kh // 2 * dilation, kw // 2 * dilation)
    return F.conv2d(x, weight, bias, padding=padding, dilation=dilation, groups=weight.shape[0])


def _triton_cannot(x: Tensor, *rest) -> str | None:
    reason = triton.cannot(x)
    if reason is None:
        from ..kernels.triton import depthwise

        reason = depthwise.cannot(x, *rest)
    return reason


def _on_triton(*args) -> Tensor:
    from ..kernels.triton import depthwise

    return depthwise.depthwise_conv2d(*args)


def _triton_plan(*args) -> str:
    from ..kernels.triton import depthwise

    return depthwise.plan(*args)


_operator = Operator(
    "depthwise_conv2d",
    Backend("cpu", cpu.depthwise_conv2d, cpu.cannot, cpu.prefer, cpu.slower, cpu.plan),
    Backend("torch", _stock, plan=lambda *args: "torch.nn.functional.conv2d"),
    Backend("triton", _on_triton, _triton_cannot, triton.prefer, triton.slower, _triton_plan),
    reference_backend(depthwise_conv2d_reference),
)


def _check(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
    """Test all conditions at once; find the message only on failure: small maps take 50 us."""
    fits = x.ndim == 4 and weight.ndim == 4 and x.is_floating_point()
    if fits:
        C, one, kh, kw = weight.shape
        fits = one == 1 and x.shape[1] == C and bool(kh & kw & 1) and dilation >= 1
    fits = fits and (bias is None or (bias.ndim == 1 and bias.shape[0] == C))
    same = x.dtype == weight.dtype and (bias is None or bias.dtype == x.dtype)
    if not (fits and (same or autocasts(x.device.type))):
        _raise_input_error(x, weight, bias, dilation)


def _raise_input_error(x: Tensor, weight: Tensor, bias: Tensor | None, dilation: int) -> None:
    if x.ndim != 4:
        raise InputError(f"x must be (N, C, H, W), got shape {tuple(x.shape)}")
    C = x.shape[1]
    if weight.ndim != 4 or weight.shape[0] != C or weight.shape[1] != 1:
        raise InputError(
            f"weight must be (C, 1, kh, kw) with C={C} as in x, got shape {tuple(weight.shape)}"
        )
    kh, kw = weight.shape[2:]
    if kh % 2 == 0 or kw % 2 == 0:
        raise InputError(f"kernel height and width must be odd, got {kh} x {kw}")
    if bias is not None and (bias.ndim != 1 or bias.shape[0] != C):
        raise InputError(f"bias must be ({C},), got shape {tuple(bias.shape)}")
    if dilation < 1:
        raise InputError(f"dilation must be at least 1, got {dilation=}")
    if not x.is_floating_point():
        raise InputError(f"x must be floating point, got {x.dtype}")
    for name, tensor in (("weight", weight), ("bias", bias)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise InputError(f"x is {x.dtype} and {name} is {tensor.dtype}; they must agree")
