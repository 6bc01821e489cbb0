"""Global Response Normalization, channels last.

ConvNeXt V2 (arXiv 2301.00808), section 3.3. Unlike timm's layer: the parameters keep the authors'
shape (1, 1, 1, C), so that checkpoints and weight decay (which timm denies to vectors) treat
them as the authors' code does; it can go without a shift, which fusing moves elsewhere; and the
norm is written as torch reduces it fastest on a CPU (0.17 ms for 1.5 ms of `norm` at 8x14x14x1280).
"""

import torch
from torch import Tensor, nn
from torch.overrides import handle_torch_function, has_torch_function


def spatial_norm(x: Tensor) -> Tensor:
    """L2 norm over the map, (N, H, W, C) -> (N, 1, 1, C)."""
    if not torch.jit.is_scripting() and has_torch_function((x,)):
        return handle_torch_function(spatial_norm, (x,), x)  # fx: one node, no branch
    wide = x.float() if x.dtype == torch.float16 else x  # squares overflow in float16
    # The floor keeps the gradient of an all-zero channel at zero instead of 0 * inf.
    return wide.square().sum((1, 2), keepdim=True).clamp_min(1e-30).sqrt().to(x.dtype)


class GlobalResponseNorm(nn.Module):
    """x * (1 + weight * N(x)) + bias, with N the L2 norm over the map by its channel mean.

    Shape: (N, H, W, C) -> (N, H, W, C)
    """

    def __init__(self, dim: int, bias: bool = True, eps: float = 1e-6, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.eps = eps
        self.weight = nn.Parameter(torch.zeros(1, 1, 1, dim, **dd))
        self.bias = nn.Parameter(torch.zeros(1, 1, 1, dim, **dd)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        energy = spatial_norm(x)
        response = energy / (energy.mean(dim=-1, keepdim=True) + self.eps)
        gain = 1 + self.weight * response
        return x * gain if self.bias is None else torch.addcmul(self.bias, x, gain)
