"""Kernels that are computed from weights at each call, computed once before a file is written.

PeLK's peripheral convolution repeats each weight over a cell of its kernel. As a graph, that is a
convolution whose weight is computed: ONNX Runtime folds it when a file is loaded, but ExecuTorch
does not hand it to its fast kernels (PeLK-T: 2165 against 203 ms).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from seewide.layers.depthwise import DepthwiseConv2d
from seewide.layers.peripheral import PeripheralConv2d
from seewide.ops.peripheral import expand_weight, position_map


class ExpandedPeripheralConv2d(nn.Module):
    """A peripheral convolution as the dense depthwise one that it is.

    Shape: (N, C, H, W), and optionally an embedding (C, K, K) -> (N, C, H, W)
    """

    def __init__(self, layer: PeripheralConv2d):
        super().__init__()
        kernel = expand_weight(layer.weight.detach(), layer.grid)
        bias = None if layer.bias is None else layer.bias.detach()
        self.conv = DepthwiseConv2d.of(kernel[:, None], bias)
        self.pos_mode = layer.pos_mode

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        y = self.conv(x)
        if pos_embed is None:
            return y
        kernel = self.conv.weight[:, 0]
        if self.pos_mode == "constant":
            return y + (kernel * pos_embed).sum((1, 2))[:, None, None]
        return y + position_map(kernel, pos_embed, x.shape[2], x.shape[3]).to(y.dtype)


@torch.no_grad()
def fold_constants(model: nn.Module) -> nn.Module:
    """Replace layers whose kernel is computed by ones that store it; `model` is changed."""
    for name, child in list(model.named_children()):
        if isinstance(child, PeripheralConv2d):
            setattr(model, name, ExpandedPeripheralConv2d(child))
        else:
            fold_constants(child)
    return ExpandedPeripheralConv2d(model) if isinstance(model, PeripheralConv2d) else model
