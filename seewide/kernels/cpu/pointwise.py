"""Products of linear layers and 1x1 convolutions through oneDNN's private operator of PyTorch.

`F.linear` calls MKL's matrix product on x86. On processors where MKL does not use its fastest code
(AMD with AVX-512), oneDNN, which the same PyTorch contains, computes the same product up to twice
as fast; on others both are level, or MKL is ahead for small products. Which one a machine prefers
is measured (`product_choice.py`), never inferred from the vendor.

`torch.ops.mkldnn._linear_pointwise` also applies GELU and adds a residual, and reads weights that
were reordered in advance (`pack`). It is private and has four traps, which this file handles: it
ignores the stride of a bias, it has no gradient, it fails for empty products, and its ReLU turns
NaN into 0 (so torch's is applied, in place).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from .._plain import needs_plain_operators
from .product_choice import onednn_is_faster

ONEDNN_NAMES = {"none": ("none", ""), "relu": ("relu", ""), "gelu": ("gelu", "none")}
SOME_ROWS = 196  # packed weights are laid out for about so many rows; any number can be computed


def has_operator() -> bool:
    """Whether this PyTorch has oneDNN and the private operators that this file calls."""
    namespace = torch.ops.mkldnn
    return torch.backends.mkldnn.is_available() and all(
        hasattr(namespace, name) for name in ("_linear_pointwise", "_reorder_linear_weight")
    )


def cannot(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None
) -> str | None:
    """None if oneDNN can compute the product, else the reason in a sentence."""
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}, this backend runs on cpu"
    if torch.compiler.is_compiling():
        return "torch.compile chooses its matrix products itself"
    reason = needs_plain_operators()
    if reason is not None:
        return reason
    if not has_operator():
        return "this PyTorch has no mkldnn._linear_pointwise"
    if x.dtype != torch.float32 and not (x.dtype == torch.bfloat16 and _bfloat16()):
        return f"oneDNN has no product of {x.dtype} on this processor"
    if x.shape[-1] == 0 or weight.shape[0] == 0:
        return "oneDNN computes no empty products"
    return None


def prefer(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None
) -> bool:
    """Whether oneDNN is the faster one: always for packed weights, else as measured here."""
    if weight.is_mkldnn:
        return True
    rows = x.numel() // x.shape[-1]
    return onednn_is_faster(rows, x.dtype)


def slower(*args) -> str:
    """Why `prefer` is False, for `explain`."""
    return "measured on this machine, oneDNN is not clearly faster than torch's own product here"


def plan(x: Tensor, weight: Tensor, *rest) -> str:
    """What `explain` prints beside the name."""
    return "oneDNN, packed weight" if weight.is_mkldnn else "oneDNN"


def pack(weight: Tensor, rows: int | None = None) -> Tensor:
    """The weight (C_out, C_in) in oneDNN's own layout; `rows` of input to be expected.

    An opaque tensor: `weight.is_mkldnn`. `packed.to_dense()` gives the weight back.
    """
    weight = weight.detach().contiguous()
    return torch.ops.mkldnn._reorder_linear_weight(weight, rows or SOME_ROWS)


def packed_bytes(packed: Tensor) -> int:
    """Memory of a packed weight, padding included."""
    return torch.ops.mkldnn._nbytes(packed)


def pointwise_product(
    x: Tensor, weight: Tensor, bias: Tensor | None, activation: str, residual: Tensor | None
) -> Tensor:
    """`seewide.ops.pointwise_product` through oneDNN."""
    tensors = [x, weight, bias, residual]
    trains = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors)
    if not trains:
        if activation == "none" and residual is not None:
            return _plus(x, residual, weight, bias)
        y = _product(x, weight, bias, activation)
        return y if residual is None else y.add_(residual)
    y = _Product.apply(x, weight, bias)
    y = apply_activation(y, activation)
    return y if residual is None else y + residual


def apply_activation(y: Tensor, activation: str) -> Tensor:
    """GELU (exact), ReLU or nothing."""
    if activation == "gelu":
        return F.gelu(y)
    if activation == "relu":
        return F.relu(y)
    return y


def _product(x: Tensor, weight: Tensor, bias: Tensor | None, activation: str = "none") -> Tensor:
    name, algorithm = ONEDNN_NAMES["none" if activation == "relu" else activation]
    bias = bias if bias is None else bias.contiguous()
    y = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], algorithm)
    return y.relu_() if activation == "relu" else y


def _plus(x: Tensor, residual: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    bias = bias if bias is None else bias.contiguous()
    return torch.ops.mkldnn._linear_pointwise.binary(x, residual, weight, bias, "add")


def _bfloat16() -> bool:
    return torch.ops.mkldnn._is_mkldnn_bf16_supported()


class _Product(torch.autograd.Function):
    """x W^T + b with both gradients as products through the same operator:

        dx = dy W        dW = dy^T x        db = sum of dy over the rows

    Made of differentiable calls, so that it can be differentiated again.
    """

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _product(x, weight, bias)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, _ = inputs
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight = ctx.saved_tensors
        dx = dw = db = None
        rows = dy.reshape(-1, dy.shape[-1])
        if ctx.needs_input_grad[0]:
            weight = weight.to_dense() if weight.is_mkldnn else weight
            dx = _differentiable(dy, weight.t())
        if ctx.needs_input_grad[1]:
            if rows.shape[0] == 0:
                dw = torch.zeros_like(weight)
            else:
                dw = _differentiable(rows.t(), x.reshape(-1, x.shape[-1]).t())
        if ctx.needs_input_grad[2]:
            db = rows.sum(0)
        return dx, dw, db


def _differentiable(x: Tensor, weight: Tensor) -> Tensor:
    """x W^T; a node of the graph only where derivatives of the gradient are wanted."""
    if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        return _Product.apply(x, weight, None)
    return _product(x, weight, None)
