"""Asymmetric large-kernel convolution: one feature map is the kernel of another's.

    y[n, c, i, j] = sum over u, v of k[n, c, u, v] * x[n, c, i + u - top, j + v - left]

with x zero outside the map, `top = (kh - 1) // 2`, `left = (kw - 1) // 2` (same padding) or 0 (no
padding), and k made of the second map. The paper writes Z[i, j] = sum_k X[i + k - 1] Y[k, j] for X
(L1, D) and Y (L2, D) ("Scaling Up Your Kernels", arXiv 2410.08049, section 3.4) and leaves open
what the product sums over, the kernel's shape, padding, scale and start; each is an argument here.

Legend: N batch, C channels, K filters, H x W map, kh x kw kernel; 1-D inputs have one of each.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError, unknown
from ..kernels import triton
from ..kernels.cpu import asymmetric as cpu
from ._dispatch import Backend, Operator, autocasts, reference_backend, run_without_autocast

CHANNELS = ("depthwise", "dense")
PADDINGS = ("same", "valid")
NORMALIZATIONS = ("none", "size", "softmax", "l2")


def asymmetric_conv(
    x: Tensor,
    kernel: Tensor,
    mask: Tensor | None = None,
    alpha: Tensor | float | None = None,
    channels: str = "depthwise",
    padding: str = "same",
    normalize: str = "none",
    resize: int | tuple[int, ...] | None = None,
) -> Tensor:
    """Convolve every sample of `x` with its own kernel.

    Args:
        x: (N, C, H, W) or (N, C, L), floating point.
        kernel: (N, C, kh, kw) or, for a 1-D `x`, (N, C, k); any sizes, even ones included. For a
            2-D `x` a 1-D kernel (N, C, k), such as the words of a sentence, lies along the longer
            axis of the map (along the width of a square one); k = 1 is a product per channel.
            With `channels="dense"` (N, K, C, kh, kw) or (N, K, C, k).
        mask: (N, kh, kw) or (N, k), True where the kernel is real; False places, such as padding
            tokens, count as absent taps.
        alpha: None, or the kernel becomes `delta + alpha * kernel` with delta the identity of the
            convolution: a scalar or, per output channel, (C,). At 0 the result is `x`.
        channels: "depthwise" convolves channel by channel; "dense" sums over the input channels,
            with K filters per sample.
        padding: "same" for as many outputs as inputs (an even kernel reaches one tap further after
            than before), "valid" for outputs where the kernel lies inside the map.
        normalize: "none"; "size" divides by the square root of the number of products summed;
            "softmax" over the taps of each channel; "l2" divides each filter by its norm.
        resize: average-pool the kernel to this size first (odd sizes keep it centred).

    Returns:
        (N, C, H', W') or (N, C, L'); K channels if dense. Of the dtype of `x` (of the autocast
        dtype under autocast).

    Raises:
        InputError: an unknown option, shapes or dtypes that do not fit, a valid kernel larger than
            the map, an identity with K different from C, or a forced backend that cannot run.

    Example:
        >>> asymmetric_conv(torch.rand(2, 8, 14, 20), torch.rand(2, 8, 7, 7)).shape
        torch.Size([2, 8, 14, 20])
    """
    _check(x, kernel, mask, channels, padding, normalize)
    return run_without_autocast(
        _operator, x, kernel, mask, alpha, channels, padding, normalize, resize
    )


def asymmetric_conv_reference(
    x: Tensor,
    kernel: Tensor,
    mask: Tensor | None = None,
    alpha: Tensor | float | None = None,
    channels: str = "depthwise",
    padding: str = "same",
    normalize: str = "none",
    resize: int | tuple[int, ...] | None = None,
) -> Tensor:
    """The definition: the sum over taps of the shifted padded input times the weight. Slow."""
    x_NCHW, kernel = _two_dimensional(x, kernel, mask, alpha, channels, normalize, resize)
    kh, kw = kernel.shape[-2:]
    if padding == "same":
        top, left = (kh - 1) // 2, (kw - 1) // 2
        x_NCHW = F.pad(x_NCHW, (left, kw - 1 - left, top, kh - 1 - top))
    H, W = x_NCHW.shape[2] - kh + 1, x_NCHW.shape[3] - kw + 1
    y: Any = 0
    for u in range(kh):
        for v in range(kw):
            shifted_NCHW = x_NCHW[:, :, u : u + H, v : v + W]
            if channels == "dense":
                y = y + torch.einsum("nchw,nkc->nkhw", shifted_NCHW, kernel[..., u, v])
            else:
                y = y + shifted_NCHW * kernel[:, :, u, v, None, None]
    return y.squeeze(2) if x.ndim == 3 else y


def fusion_kernel(
    kernel: Tensor,
    mask: Tensor | None = None,
    alpha: Tensor | float | None = None,
    channels: str = "depthwise",
    normalize: str = "none",
    resize: int | tuple[int, ...] | None = None,
) -> Tensor:
    """The kernel that `asymmetric_conv` convolves with, of the same arguments.

    Returns:
        `kernel` pooled, masked, normalised and with the identity added: (N, C, kh, kw),
        (N, K, C, kh, kw), or with one spatial axis as `kernel` has.
    """
    dense = channels == "dense"
    spatial = kernel.ndim - (3 if dense else 2)
    axes = tuple(range(-spatial, 0))
    real = None
    if mask is not None:
        real = mask.reshape(mask.shape[0], *[1] * (kernel.ndim - mask.ndim), *mask.shape[1:])
        kernel = torch.where(real, kernel, 0.0)
    if resize is not None:
        size = (resize,) * spatial if isinstance(resize, int) else tuple(resize)
        if len(size) != spatial or min(size) < 1:
            raise InputError(f"resize must be {spatial} positive sizes or one, got {resize}")
        kernel = _pool(kernel, size)
        if real is not None:
            share = _pool(real.to(kernel.dtype), size)
            kernel = kernel / share.clamp_min(torch.finfo(kernel.dtype).tiny)
            real = share > 0
            kernel = torch.where(real, kernel, 0.0)
    filter_axes = (-spatial - 1, *axes) if dense else axes
    if normalize == "size":
        present = torch.ones_like(kernel[:1, :1]) if real is None else real.to(kernel.dtype)
        taps = present.expand_as(kernel[:, :1]).sum(filter_axes, keepdim=True)
        kernel = kernel / taps.clamp_min(1).sqrt()
    elif normalize == "softmax":
        flat = kernel.flatten(-spatial)
        if real is None:
            flat = flat.softmax(-1)
        else:
            there = real.flatten(-spatial)
            lowest = torch.finfo(flat.dtype).min  # not -inf: a sample may have no tap at all
            flat = flat.masked_fill(~there, lowest).softmax(-1) * there
        kernel = flat.reshape(kernel.shape)
    elif normalize == "l2":
        squares = kernel.square().sum(filter_axes, keepdim=True)
        kernel = kernel * (squares + torch.finfo(kernel.dtype).tiny).rsqrt()
    if alpha is not None:
        if isinstance(alpha, Tensor) and alpha.ndim == 1:
            alpha = alpha.reshape(-1, *[1] * (kernel.ndim - 2))
        kernel = alpha * kernel + _identity(kernel, spatial, dense)
    return kernel


def _pool(kernel: Tensor, size: tuple[int, ...]) -> Tensor:
    lead, spatial = kernel.shape[: -len(size)], kernel.shape[-len(size) :]
    pool: Any = F.adaptive_avg_pool2d if len(size) == 2 else F.adaptive_avg_pool1d
    return pool(kernel.reshape(-1, 1, *spatial), size).reshape(*lead, *size)


def _identity(kernel: Tensor, spatial: int, dense: bool) -> Tensor:
    delta = kernel.new_zeros(kernel.shape[1:])
    centre = tuple((size - 1) // 2 for size in kernel.shape[-spatial:])
    if dense:
        K, C = kernel.shape[1:3]
        if K != C:
            raise InputError(f"the identity needs as many filters as channels, got {K=} and {C=}")
        channel = torch.arange(C, device=kernel.device)
        index: tuple[Any, ...] = (channel, channel, *centre)
    else:
        index = (slice(None), *centre)
    delta[index] = 1.0
    return delta


def _two_dimensional(
    x: Tensor, kernel: Tensor, mask, alpha, channels: str, normalize: str, resize
) -> tuple[Tensor, Tensor]:
    """`x` as (N, C, H, W) and the finished kernel with two spatial axes."""
    kernel = fusion_kernel(kernel, mask, alpha, channels, normalize, resize)
    if x.ndim == 3:
        return x.unsqueeze(2), kernel.unsqueeze(-2)
    if kernel.ndim == (4 if channels == "dense" else 3):
        return x, kernel.unsqueeze(-1 if x.shape[2] > x.shape[3] else -2)
    return x, kernel


def _run(convolve: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """A backend's `run`, made of a same-padding convolution of (1, P, H, W) with (P, 1, kh, kw)."""

    def run(x, kernel, mask, alpha, channels, padding, normalize, resize) -> Tensor:
        x_NCHW, kernel = _two_dimensional(x, kernel, mask, alpha, channels, normalize, resize)
        N, C, H, W = x_NCHW.shape
        kh, kw = kernel.shape[-2:]
        if channels == "dense":
            y_NCHW = _dense(x_NCHW, kernel, padding)
        else:
            # An even kernel is an odd one whose first row or column is zero.
            odd = F.pad(kernel, (1 - kw % 2, 0, 1 - kh % 2, 0))
            y = convolve(x_NCHW.reshape(1, N * C, H, W), odd.reshape(N * C, 1, *odd.shape[2:]))
            y_NCHW = y.reshape(N, C, H, W)
            if padding == "valid":
                top, left = (kh - 1) // 2, (kw - 1) // 2
                y_NCHW = y_NCHW[:, :, top : top + H - kh + 1, left : left + W - kw + 1]
        return y_NCHW.squeeze(2) if x.ndim == 3 else y_NCHW

    return run


def _dense(x_NCHW: Tensor, kernel_NKCkk: Tensor, padding: str) -> Tensor:
    """One convolution per sample: oneDNN computes a few wide groups at a tenth of that speed."""
    kh, kw = kernel_NKCkk.shape[-2:]
    if padding == "same":
        top, left = (kh - 1) // 2, (kw - 1) // 2
        x_NCHW = F.pad(x_NCHW, (left, kw - 1 - left, top, kh - 1 - top))
    pairs = zip(x_NCHW.split(1), kernel_NKCkk.unbind(0), strict=True)
    return torch.cat([F.conv2d(x, kernel) for x, kernel in pairs])


def _stock(x: Tensor, kernel: Tensor) -> Tensor:
    kh, kw = kernel.shape[2:]
    return F.conv2d(x, kernel, padding=(kh // 2, kw // 2), groups=kernel.shape[0])


def _planes(x: Tensor, kernel: Tensor) -> tuple[Tensor, Tensor]:
    """Empty tensors (meta) of the shapes that `convolve` gets, for questions about them."""
    N, C = x.shape[:2]
    H, W = x.shape[2:] if x.ndim == 4 else (1, x.shape[2])
    size = kernel.shape[2:] if kernel.ndim == 4 else (1, kernel.shape[2])
    if x.ndim == 4 and kernel.ndim == 3 and H > W:
        size = (size[1], 1)
    kh, kw = (k + 1 - k % 2 for k in size)
    meta: dict[str, Any] = {"device": "meta", "dtype": x.dtype}
    return torch.empty(1, N * C, H, W, **meta), torch.empty(N * C, 1, kh, kw, **meta)


def _not_dense(channels: str) -> str | None:
    return "dense kernels are computed by the backend 'torch'" if channels == "dense" else None


def _torch_cannot(x: Tensor, kernel: Tensor, *rest) -> str | None:
    empty = x.numel() == 0 or kernel.numel() == 0
    return "torch has no convolution of zero groups: the input is empty" if empty else None


def _cpu_cannot(x: Tensor, kernel: Tensor, mask, alpha, channels: str, *rest) -> str | None:
    return _not_dense(channels) or cpu.cannot(x, kernel)


def _cpu_plan(x: Tensor, kernel: Tensor, *rest) -> str:
    return cpu.plan(*_planes(x, kernel))


def _triton_cannot(x: Tensor, kernel: Tensor, mask, alpha, channels: str, *rest) -> str | None:
    reason = _not_dense(channels) or triton.cannot(x)
    if reason is None:
        from ..kernels.triton import depthwise

        planes, kernels = _planes(x, kernel)
        reason = depthwise.cannot(planes, kernels, None, 1)
    return reason


def _on_triton(x: Tensor, kernel: Tensor) -> Tensor:
    from ..kernels.triton import depthwise

    return depthwise.depthwise_conv2d(x, kernel, None, 1)


_operator = Operator(
    "asymmetric_conv",
    Backend("cpu", _run(cpu.planes_conv2d), _cpu_cannot, plan=_cpu_plan),
    Backend("torch", _run(_stock), _torch_cannot, plan=lambda *args: "torch.nn.functional.conv2d"),
    Backend("triton", _run(_on_triton), _triton_cannot, triton.prefer, triton.slower),
    reference_backend(asymmetric_conv_reference),
)


def _check(
    x: Tensor, kernel: Tensor, mask: Tensor | None, channels: str, padding: str, normalize: str
) -> None:
    for kind, value, known in (
        ("channels", channels, CHANNELS),
        ("padding", padding, PADDINGS),
        ("normalize", normalize, NORMALIZATIONS),
    ):
        if value not in known:
            raise unknown(kind, value, known)
    if x.ndim not in (3, 4):
        raise InputError(f"x must be (N, C, H, W) or (N, C, L), got shape {tuple(x.shape)}")
    N, C = x.shape[:2]
    dense = channels == "dense"
    lead = f"(N, {'K, ' if dense else ''}C, ...)"
    size = kernel.shape[3 if dense else 2 :]
    allowed = (1, 2) if x.ndim == 4 else (1,)
    channel = kernel.shape[2 if dense else 1] if kernel.ndim > (2 if dense else 1) else None
    if kernel.shape[0] != N or channel != C or len(size) not in allowed or 0 in size:
        raise InputError(
            f"kernel must be {lead} with N={N}, C={C} and {' or '.join(map(str, allowed))} "
            f"spatial axes for x of shape {tuple(x.shape)}, got shape {tuple(kernel.shape)}"
        )
    if mask is not None and (mask.shape != (N, *size) or mask.dtype != torch.bool):
        raise InputError(
            f"mask must be bool of shape {(N, *size)}, got {mask.dtype} {tuple(mask.shape)}"
        )
    if not x.is_floating_point():
        raise InputError(f"x must be floating point, got {x.dtype}")
    if x.dtype != kernel.dtype and not autocasts(x.device.type):
        raise InputError(f"x is {x.dtype} and kernel is {kernel.dtype}; they must agree")
    if padding == "valid":
        _check_valid(x, size)


def _check_valid(x: Tensor, size: tuple[int, ...]) -> None:
    map_size: tuple[int, ...] = x.shape[2:]
    if len(size) < len(map_size):
        map_size = (max(map_size),)
    if any(k > length for k, length in zip(size, map_size, strict=True)):
        raise InputError(
            f"a valid kernel must fit into the map, got {tuple(size)} in {tuple(map_size)}"
        )
