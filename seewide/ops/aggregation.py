"""Small-kernel aggregation, SKA: a depthwise convolution whose kernel differs at every pixel.

    y[n, c, i, j] = sum over u, v of
                    weight[n, c % G, u * k + v, i, j] * x[n, c, i + u - k // 2, j + v - k // 2]

with x zero outside the map: stride 1, as many outputs as inputs. The "focus small" half of LS
convolution, LSNet (arXiv 2503.23135), section 3.2; the weights come from its "see large" half.
Which channels share a set of weights is the authors' code (c % G), where the paper reads as if
neighbours did.
"""

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError
from ..kernels import triton
from ..kernels.cpu import aggregation as cpu
from ._dispatch import Backend, Operator, autocasts, reference_backend, run_without_autocast


def small_kernel_aggregation(x: Tensor, weight: Tensor) -> Tensor:
    """Sum of the k x k neighbours of each pixel, weighted by the kernel of that pixel.

    Args:
        x: (N, C, H, W), floating point; contiguous or channels_last, as the result then is.
        weight: (N, G, k * k, H, W), k odd, taps row by row; G divides C, and channel c uses
            set c % G.

    Returns:
        (N, C, H, W), of the dtype of `x` (of the autocast dtype under autocast).

    Raises:
        InputError: an even kernel, shapes or dtypes that do not fit, or a forced backend
            that cannot run.

    Example:
        >>> small_kernel_aggregation(torch.rand(2, 16, 7, 9), torch.rand(2, 4, 9, 7, 9)).shape
        torch.Size([2, 16, 7, 9])
    """
    if torch.jit.is_scripting():  # TorchScript does not compile the dispatch
        return _shifted_products(x, weight)
    else:
        if has_torch_function((x, weight)):  # fx proxies: one node in the traced graph
            return handle_torch_function(small_kernel_aggregation, (x, weight), x, weight)
        if not torch.jit.is_tracing():  # a trace would record comparisons of sizes
            _check(x, weight)
        return run_without_autocast(_operator, x, weight)


def small_kernel_aggregation_reference(x: Tensor, weight: Tensor) -> Tensor:
    """The definition: the k * k neighbours of every pixel, unfolded, weighted and summed."""
    (N, C, H, W), (G, taps) = x.shape, weight.shape[1:3]
    k = cpu.kernel_size(taps)
    neighbours = F.unfold(x, k, padding=k // 2).reshape(N, C, taps, H, W)
    return (neighbours * weight.repeat(1, C // G, 1, 1, 1)).sum(2)


def _shifted_products(x: Tensor, weight: Tensor) -> Tensor:
    """For each tap, the shifted padded input times its weight: k * k passes, no unfolding."""
    N, C, H, W = x.shape
    G, taps = weight.shape[1], weight.shape[2]
    k = cpu.kernel_size(taps)
    p = k // 2
    x_padded = F.pad(x, (p, p, p, p)).unflatten(1, (C // G, G))
    y = x_padded[..., :H, :W] * weight[:, None, :, 0]
    for tap in range(1, taps):
        top, left = tap // k, tap % k
        shifted = x_padded[..., top : top + H, left : left + W]
        y = torch.addcmul(y, shifted, weight[:, None, :, tap])
    return y.reshape(N, C, H, W)


def _on_torch(x: Tensor, weight: Tensor) -> Tensor:
    if torch.jit.is_tracing():
        with warnings.catch_warnings():  # the number of taps becomes a constant of the trace
            warnings.simplefilter("ignore", torch.jit.TracerWarning)
            return _shifted_products(x, weight)
    return _shifted_products(x, weight)


def _triton_cannot(x: Tensor, weight: Tensor) -> str | None:
    reason = triton.cannot(x)
    if reason is None:
        from ..kernels.triton import aggregation

        reason = aggregation.cannot(x, weight)
    return reason


def _on_triton(x: Tensor, weight: Tensor) -> Tensor:
    from ..kernels.triton import aggregation

    return aggregation.small_kernel_aggregation(x, weight)


_operator = Operator(
    "small_kernel_aggregation",
    Backend("cpu", cpu.small_kernel_aggregation, cpu.cannot, cpu.prefer, cpu.slower),
    Backend("torch", _on_torch),
    Backend("triton", _on_triton, _triton_cannot, triton.prefer, triton.slower),
    reference_backend(small_kernel_aggregation_reference),
)


def _check(x: Tensor, weight: Tensor) -> None:
    if x.ndim != 4:
        raise InputError(f"x must be (N, C, H, W), got shape {tuple(x.shape)}")
    N, C, H, W = x.shape
    fits = weight.ndim == 5 and (weight.shape[0], *weight.shape[3:]) == (N, H, W)
    if not fits:
        raise InputError(
            f"weight must be (N, G, k * k, H, W) with N={N}, H={H}, W={W} as in x, "
            f"got shape {tuple(weight.shape)}"
        )
    G, taps = weight.shape[1:3]
    if G < 1 or C % G:
        raise InputError(f"the number of weight sets must divide C={C}, got G={G}")
    k = cpu.kernel_size(taps)
    if k * k != taps or k % 2 == 0:
        raise InputError(f"weight must hold the taps of an odd square kernel, got {taps} taps")
    if not x.is_floating_point():
        raise InputError(f"x must be floating point, got {x.dtype}")
    if weight.dtype != x.dtype and not autocasts(x.device.type):
        raise InputError(f"x is {x.dtype} and weight is {weight.dtype}; they must agree")
