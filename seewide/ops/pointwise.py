"""Pointwise product: what a linear layer and a 1x1 convolution compute at each pixel.

    y[..., o] = activation(sum over i of weight[o, i] * x[..., i] + bias[o]) + residual[..., o]

Backends: `onednn`, which fuses the activation and the residual and takes weights that were packed
in advance, and `torch` (`torch.nn.functional.linear`, that is MKL on x86). Which one is faster
depends on the processor and is measured once per machine (kernels/cpu/product_choice.py).
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError, unknown
from ..kernels.cpu import pointwise as onednn
from ._dispatch import Backend, Operator, autocasts, reference_backend, run_without_autocast

ACTIVATIONS = ("none", "relu", "gelu")


def pointwise_product(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """Matrix product over the last axis, with optional activation and residual.

    Args:
        x: (..., C_in), floating point.
        weight: (C_out, C_in), or what `pack_pointwise_weight` returned (inference on CPUs only).
        bias: (C_out,) or None.
        activation: "none", "relu" or "gelu" (the exact one, by erf), applied to the product.
        residual: (..., C_out), added after the activation, or None.

    Returns:
        (..., C_out), of the dtype of `x` (of the autocast dtype under autocast).

    Raises:
        InputError: shapes or dtypes that do not fit, an unknown activation, or a forced backend
            that cannot run.

    Example:
        >>> pointwise_product(torch.rand(2, 14, 14, 8), torch.rand(32, 8), activation="gelu").shape
        torch.Size([2, 14, 14, 32])
    """
    if torch.jit.is_scripting():  # TorchScript knows no Python dispatch
        y = F.linear(x, weight, bias)
        if activation == "gelu":
            y = F.gelu(y)
        elif activation == "relu":
            y = F.relu(y)
        return y if residual is None else y + residual
    else:
        tensors = (x, weight, bias, residual)
        if has_torch_function(tensors):  # fx proxies: one node in the traced graph
            return handle_torch_function(
                pointwise_product,
                tensors,
                x,
                weight,
                bias=bias,
                activation=activation,
                residual=residual,
            )
        _check(x, weight, bias, activation, residual)
        return run_without_autocast(_operator, x, weight, bias, activation, residual)


def pointwise_product_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    activation: str = "none",
    residual: Tensor | None = None,
) -> Tensor:
    """The definition, one input channel at a time. Slow and plain."""
    y = x.new_zeros(*x.shape[:-1], weight.shape[0])
    for i in range(weight.shape[1]):
        y = y + x[..., i, None] * weight[:, i]
    if bias is not None:
        y = y + bias
    if activation == "relu":
        y = y.clamp_min(0)
    elif activation == "gelu":
        y = y * 0.5 * (1 + torch.erf(y / 2**0.5))
    return y if residual is None else y + residual


def pack_pointwise_weight(weight: Tensor, rows: int | None = None) -> Tensor:
    """The weight (C_out, C_in) in oneDNN's own layout, for repeated products in inference.

    Args:
        rows: of the inputs to be expected (pixels times batch); others can be computed as well.

    Raises:
        InputError: this PyTorch has no such layout, or the weight is not a matrix on the CPU.
    """
    if not onednn.has_operator():
        raise InputError("this PyTorch has no mkldnn._reorder_linear_weight to pack weights with")
    if weight.ndim != 2 or weight.device.type != "cpu" or weight.numel() == 0:
        raise InputError(
            "weight must be a (C_out, C_in) matrix on the cpu, got shape "
            f"{tuple(weight.shape)} on {weight.device}"
        )
    return onednn.pack(weight, rows)


def _torch_cannot(x: Tensor, weight: Tensor, *rest) -> str | None:
    if weight.is_mkldnn:
        return "the weight is packed, which only oneDNN reads"
    return None


def _on_torch(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None
) -> Tensor:
    y = onednn.apply_activation(F.linear(x, weight, bias), activation)
    return y if residual is None else y + residual


def _reference(x: Tensor, weight: Tensor, *rest) -> Tensor:
    return pointwise_product_reference(x, weight.to_dense() if weight.is_mkldnn else weight, *rest)


_operator = Operator(
    "pointwise_product",
    Backend(
        "onednn",
        onednn.pointwise_product,
        onednn.cannot,
        onednn.prefer,
        onednn.slower,
        onednn.plan,
    ),
    Backend("torch", _on_torch, _torch_cannot, plan=lambda *args: "torch.nn.functional.linear"),
    reference_backend(_reference),
)


def _check(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None
) -> None:
    if activation not in ACTIVATIONS:
        raise unknown("activation", activation, ACTIVATIONS)
    if torch.jit.is_tracing():
        return  # sizes are tensors here, and comparing them would be recorded as a constant
    if weight.ndim != 2 or x.ndim < 1 or x.shape[-1] != weight.shape[1]:
        raise InputError(
            "x must be (..., C_in) and weight (C_out, C_in), got shapes "
            f"{tuple(x.shape)} and {tuple(weight.shape)}"
        )
    out = weight.shape[0]
    if bias is not None and bias.shape != (out,):
        raise InputError(f"bias must be ({out},), got shape {tuple(bias.shape)}")
    if residual is not None and residual.shape != (*x.shape[:-1], out):
        raise InputError(
            f"residual must be {(*x.shape[:-1], out)}, got shape {tuple(residual.shape)}"
        )
    if not x.is_floating_point():
        raise InputError(f"x must be floating point, got {x.dtype}")
    if autocasts(x.device.type):
        return
    for name, tensor in (("weight", weight), ("bias", bias), ("residual", residual)):
        if tensor is not None and tensor.dtype != x.dtype:
            raise InputError(f"x is {x.dtype} and {name} is {tensor.dtype}; they must agree")
