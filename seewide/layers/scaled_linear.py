"""A linear layer with a layer scale."""

from typing import Any

import torch
from torch import Tensor, nn

from ..ops import pointwise_product
from .pointwise import PointwiseLinear


class ScaledLinear(nn.Linear):
    """gamma * (W x + b), with a factor gamma per output ("layer scale", arXiv 2103.17239).

    Args:
        in_features: size of the input.
        out_features: size of the output.
        init_value: initial gamma.

    Shape: (..., in_features) -> (..., out_features)
    """

    def __init__(
        self, in_features: int, out_features: int, init_value: float, device=None, dtype=None
    ):
        super().__init__(in_features, out_features, device=device, dtype=dtype)
        self.init_value = init_value
        self.gamma = nn.Parameter(torch.empty(out_features, device=device, dtype=dtype))
        nn.init.constant_(self.gamma, init_value)

    def reset_parameters(self) -> None:
        """As `nn.Linear`, and the initial layer scale."""
        super().reset_parameters()
        if "gamma" in self._parameters:  # nn.Linear calls this before there is one
            nn.init.constant_(self.gamma, self.init_value)

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_product(x, self.weight, self.bias) * self.gamma

    @torch.no_grad()
    def fuse(self) -> nn.Linear:
        """The plain layer that computes the same."""
        dd: dict[str, Any] = {"device": self.weight.device, "dtype": self.weight.dtype}
        layer = PointwiseLinear(self.in_features, self.out_features, **dd)
        layer.weight = nn.Parameter(self.weight * self.gamma[:, None])
        layer.bias = nn.Parameter(self.bias * self.gamma)
        return layer
