"""Global Response Normalization, channels last.

ConvNeXt V2 (arXiv 2301.00808), section 3.3. Unlike timm's layer: the parameters keep the authors'
shape (1, 1, 1, C), so that checkpoints and weight decay (which timm denies to vectors) treat
them as the authors' code does; it can go without a shift, which fusing moves elsewhere; and on a
CPU it trains with one temporary a pass, twice as fast as autograd (docs/log).

Legend: x (N, H, W, C), energy e (N, 1, 1, C), response r = e / (mean of e + eps).
"""

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function

TINY = 1e-30  # the floor of e^2: the gradient of an all-zero channel is zero instead of 0 * inf


def global_response_norm(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
    """x * (1 + weight * r) + bias, with e the L2 norm of each channel over the map.

    Args:
        x: (N, H, W, C).
        weight: (1, 1, 1, C).
        bias: (1, 1, 1, C) or None.
        eps: added to the mean of the energies over the channels.

    Returns:
        (N, H, W, C)
    """
    if torch.jit.is_scripting():
        return _formula(x, weight, bias, eps)
    else:
        if has_torch_function((x,)):  # fx: one node, no branch
            return handle_torch_function(global_response_norm, (x,), x, weight, bias, eps)
        wide = x.dtype in (torch.float32, torch.float64) and weight.dtype == x.dtype
        trains = torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad)
        if trains and wide and x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _ResponseNorm.apply(x, weight, bias, eps)
        return _formula(x, weight, bias, eps)


def _formula(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    eps: float,
    tiny: float = TINY,  # an argument, since TorchScript sees no global numbers
) -> Tensor:
    wide = x.float() if x.dtype == torch.float16 else x  # squares overflow in float16
    # As torch reduces it fastest on a CPU: 0.17 ms for 1.5 ms of `norm` at 8 x 14 x 14 x 1280.
    energy = wide.square().sum((1, 2), keepdim=True).clamp_min(tiny).sqrt().to(x.dtype)
    gain = 1 + weight * (energy / (energy.mean(dim=-1, keepdim=True) + eps))
    return x * gain if bias is None else torch.addcmul(bias, x, gain)


class _ResponseNorm(torch.autograd.Function):
    """The formula, with the temporary of each pass reused as its result.

    With s = sum of x * dy over the map, and m = mean of e + eps:

        dx = dy * gain + x * d / e,   d = weight * s / m - mean of (weight * s * e) / m^2
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        y = x.square()
        energy = y.sum((1, 2), keepdim=True).clamp_min_(TINY).sqrt_()
        gain = 1 + weight * (energy / (energy.mean(dim=-1, keepdim=True) + eps))
        ctx.save_for_backward(x, weight, bias, energy, gain)
        ctx.eps = eps
        if bias is None:
            return torch.mul(x, gain, out=y)
        return torch.addcmul(bias, x, gain, out=y)

    @staticmethod
    def backward(ctx, dy: Tensor):
        x, weight, bias, energy, gain = ctx.saved_tensors
        if torch.is_grad_enabled():  # asked for derivatives of the gradient: by the formula
            inputs = [t for t in (x, weight, bias) if t is not None and t.requires_grad]
            y = _formula(x, weight, bias, ctx.eps)
            found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
            return *(next(found) if need else None for need in ctx.needs_input_grad[:3]), None
        dx = x * dy
        s = dx.sum((1, 2), keepdim=True)
        mean = energy.mean(dim=-1, keepdim=True) + ctx.eps
        dweight = (s * (energy / mean)).sum(0, keepdim=True)
        dbias = dy.sum((0, 1, 2), keepdim=True) if ctx.needs_input_grad[2] else None
        if not ctx.needs_input_grad[0]:
            return None, dweight, dbias, None
        d = weight * s / mean
        d = d - (d * energy).mean(dim=-1, keepdim=True) / mean
        torch.mul(dy, gain, out=dx)
        return dx.addcmul_(x, d / energy), dweight, dbias, None


class GlobalResponseNorm(nn.Module):
    """`global_response_norm` as a layer.

    Shape: (N, H, W, C) -> (N, H, W, C)
    """

    def __init__(self, dim: int, bias: bool = True, eps: float = 1e-6, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, dim, **dd))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, dim, **dd)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        return global_response_norm(x, self.weight, self.bias, self.eps)
