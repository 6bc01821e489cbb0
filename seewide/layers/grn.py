"""`seewide.ops.global_response_norm` as a layer, channels last.

ConvNeXt V2 (arXiv 2301.00808), section 3.2. Unlike in timm's layer, the parameters have the
authors' shape (1, 1, 1, C), so that checkpoints load and weight decay (which timm does not apply
to vectors) applies as in the authors' code; and the bias is optional.
"""

import torch
from torch import Tensor, nn

from ..ops import global_response_norm


class GlobalResponseNorm(nn.Module):
    """`seewide.ops.global_response_norm` with its parameters.

    Args:
        dim: C.
        bias: whether it has a bias.
        eps: added to the mean norm.

    Shape: (N, H, W, C) -> (N, H, W, C)
    """

    def __init__(self, dim: int, bias: bool = True, eps: float = 1e-6, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(1, 1, 1, dim, **dd))
        self.bias = nn.Parameter(torch.empty(1, 1, 1, dim, **dd)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zeros: the layer starts as the identity."""
        nn.init.zeros_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return global_response_norm(x, self.weight, self.bias, self.eps)
