"""Global response normalization on the CPU, with one temporary tensor per pass.

Autograd over the formula stores and reads four tensors of the size of x. Here the forward pass
returns the tensor that held the squares, and the backward pass the one that held x * dy, which
makes training twice as fast (docs/log). With s = sum of x * dy over the map, m = mean of e + eps:

    dx = dy * gain + x * d / e,    d = weight * s / m - mean of (weight * s * e) / m^2

Legend: x (N, H, W, C), norm e (N, 1, 1, C), gain = 1 + weight * e / m.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from .._plain import needs_plain_operators


def cannot(x: Tensor, *rest) -> str | None:
    """None if this file can compute on `x`, else the reason in a sentence."""
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}, this backend runs on cpu"
    return needs_plain_operators()


def prefer(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> bool:
    """Whether this file is faster than the plain formula."""
    trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
    wide = x.dtype in (torch.float32, torch.float64) and weight.dtype == x.dtype
    return trains and wide and not torch.compiler.is_compiling()


def slower(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> str:
    """Why `prefer` is False, for `explain`."""
    if torch.compiler.is_compiling():
        return "the compiler fuses the plain formula by itself"
    if x.dtype not in (torch.float32, torch.float64) or weight.dtype != x.dtype:
        return "it would compute in float32 and convert"
    return "without gradients it computes what the plain formula computes"


def global_response_norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    tiny: float,
    formula: Callable[..., Tensor],
) -> Tensor:
    """`seewide.ops.global_response_norm` on the CPU.

    Args:
        x, weight, bias, eps: of the operator.
        tiny: lower bound of the squared norm.
        formula: (x, weight, bias, eps) -> result in plain operators, for second derivatives.
    """
    tensors = [t for t in (x, weight, bias) if t is not None]
    dtype = x.dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    wide = torch.promote_types(dtype, torch.float32)
    x, weight = x.to(wide), weight.to(wide)
    bias = bias if bias is None else bias.to(wide)
    if torch.compiler.is_compiling():  # which reuses temporary tensors by itself
        return formula(x, weight, bias, eps).to(dtype)
    return _ResponseNorm.apply(x, weight, bias, eps, tiny, formula)[0].to(dtype)


class _ResponseNorm(torch.autograd.Function):
    """(y, e, gain), of which only y has a gradient."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, eps: float, tiny: float, formula: Callable
    ) -> tuple[Tensor, Tensor, Tensor]:
        y = x.square()
        energy = y.sum((1, 2), keepdim=True).clamp_min_(tiny).sqrt_()
        gain = 1 + weight * (energy / (energy.mean(dim=-1, keepdim=True) + eps))
        if bias is None:
            torch.mul(x, gain, out=y)
        else:
            torch.addcmul(bias, x, gain, out=y)
        return y, energy, gain

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, weight, bias, ctx.eps, _, ctx.formula = inputs
        _, energy, gain = output
        ctx.mark_non_differentiable(energy, gain)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(x, weight, bias, energy, gain)

    @staticmethod
    def backward(ctx, dy: Tensor | None, *rest):
        if dy is None:
            return (None,) * 6
        x, weight, bias, energy, gain = ctx.saved_tensors
        need_x, need_weight, need_bias = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # second derivatives were requested: differentiate the formula
            inputs = [t for t in (x, weight, bias) if t is not None and t.requires_grad]
            y = ctx.formula(x, weight, bias, ctx.eps)
            found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
            gradients = (next(found) if need else None for need in (need_x, need_weight, need_bias))
            return *gradients, None, None, None
        dx = x * dy
        s = dx.sum((1, 2), keepdim=True)
        mean = energy.mean(dim=-1, keepdim=True) + ctx.eps
        dweight = (s * (energy / mean)).sum(0, keepdim=True) if need_weight else None
        dbias = dy.sum((0, 1, 2), keepdim=True) if need_bias else None
        if not need_x:
            return None, dweight, dbias, None, None, None
        d = weight * s / mean
        d = d - (d * energy).mean(dim=-1, keepdim=True) / mean
        torch.mul(dy, gain, out=dx)
        return dx.addcmul_(x, d / energy), dweight, dbias, None, None, None
