"""UniRepLKNet's block, unfused and fused.

Papers: "UniRepLKNet" (arXiv 2311.15599), "Scaling Up Your Kernels" (arXiv 2410.08049).

Depthwise convolution (large: a Dilated Reparam Block) -> BN -> SE -> linear -> GELU -> GRN ->
linear -> BN -> layer scale, with a residual connection. Legend: N batch, C channels, H x W map.
"""

from typing import Any, cast

import torch
from timm.layers import DropPath
from torch import Tensor, nn

from ..reparam import batch_norm_affine, fold_batch_norm
from .depthwise import DepthwiseConv2d
from .dilated_reparam import DilatedReparamBlock, branches_of
from .extra_structure import extra_structure
from .grn import GlobalResponseNorm
from .pointwise import PointwiseLinear

REPARAM_FROM = 7  # smaller kernels are trained without branches in the authors' code


class UniRepLKNetBlock(nn.Module):
    """The block as it is trained. 2311.15599 section 3.1, Figure 2; 2410.08049 section 3.2.

    Args:
        dim: C.
        kernel_size: of the depthwise convolution; 0 for none.
        drop_path: probability of dropping the residual branch.
        ls_init_value: initial layer scale.
        mlp_ratio: width of the hidden layer over C.
        extra: name of the structure after the depthwise convolution, see EXTRA_STRUCTURES.
        reparam: kind of branches that a large kernel is trained with, see `branches_of`.
        dilation: of the depthwise convolution and of the extra structure.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        drop_path: float = 0.0,
        ls_init_value: float = 1e-6,
        mlp_ratio: float = 4.0,
        extra: str = "se",
        reparam: str = "dilated",
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd: dict[str, Any] = {"device": device, "dtype": dtype}
        hidden = int(mlp_ratio * dim)
        if kernel_size == 0:
            self.dwconv: nn.Module = nn.Identity()
        elif kernel_size < REPARAM_FROM:
            self.dwconv = DepthwiseConv2d(dim, kernel_size, dilation, bias=False, **dd)
        else:
            branches = branches_of(kernel_size, reparam)
            self.dwconv = DilatedReparamBlock(dim, kernel_size, branches, dilation, **dd)
        self.norm = nn.BatchNorm2d(dim, **dd) if kernel_size else nn.Identity()
        # Named after what the published networks have here.
        self.se = extra_structure(extra, dim, dilation, **dd)
        self.fc1 = PointwiseLinear(dim, hidden, **dd)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(hidden, **dd)
        self.fc2 = PointwiseLinear(hidden, dim, bias=False, **dd)
        self.norm2 = nn.BatchNorm2d(dim, **dd)
        self.ls_init_value = ls_init_value
        self.gamma = nn.Parameter(torch.empty(dim, **dd))
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial layer scale."""
        nn.init.constant_(self.gamma, self.ls_init_value)

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.norm(self.dwconv(x)))
        y = self.fc2(self.grn(self.act(self.fc1(y.permute(0, 2, 3, 1)))))
        y = self.norm2(y.permute(0, 3, 1, 2)) * self.gamma[:, None, None]
        return x + self.drop_path(y)

    @torch.no_grad()
    def fuse(self) -> "FusedUniRepLKNetBlock":
        """The plain block that computes the same in evaluation."""
        dwconv: nn.Module = nn.Identity()
        if not isinstance(self.dwconv, nn.Identity):
            layer: Any = self.dwconv
            if isinstance(self.dwconv, DilatedReparamBlock):
                kernel, bias = layer.folded()
                dilation = layer.dilation
            else:
                kernel, bias = layer.weight, layer.bias
                dilation = layer.dilation[0]
            dwconv = DepthwiseConv2d.of(
                *fold_batch_norm(kernel, bias, cast(nn.BatchNorm2d, self.norm)), dilation
            )
        # gamma * BN(W (grn + beta)) = (gamma s W) grn + gamma (s W beta + t)
        scale, shift = batch_norm_affine(self.norm2)
        weight, beta = self.fc2.weight, cast(Tensor, self.grn.bias).flatten()
        return FusedUniRepLKNetBlock(
            dwconv,
            self.se,
            self.fc1,
            self.grn.weight,
            self.grn.eps,
            (self.gamma * scale)[:, None] * weight,
            self.gamma * (scale * (weight @ beta) + shift),
        )


class FusedUniRepLKNetBlock(nn.Module):
    """The block without batch norms, branches and layer scale, and without a shift in the GRN.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        dwconv: nn.Module,
        se: nn.Module,
        fc1: nn.Linear,
        grn_weight: Tensor,
        grn_eps: float,
        fc2_weight: Tensor,
        fc2_bias: Tensor,
    ):
        super().__init__()
        dim, hidden = fc2_weight.shape
        dd: dict[str, Any] = {"device": fc2_weight.device, "dtype": fc2_weight.dtype}
        self.dwconv = dwconv
        self.se = se
        self.fc1 = fc1
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(hidden, bias=False, eps=grn_eps, **dd)
        self.grn.weight = nn.Parameter(grn_weight.detach().clone())
        self.fc2 = PointwiseLinear(hidden, dim, **dd)
        self.fc2.weight = nn.Parameter(fc2_weight.detach().clone())
        self.fc2.bias = nn.Parameter(fc2_bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.dwconv(x))
        y = self.fc2(self.grn(self.act(self.fc1(y.permute(0, 2, 3, 1)))))
        return x + y.permute(0, 3, 1, 2)
