"""Linear layers and 1x1 convolutions over `seewide.ops.pointwise_product`."""

import torch
from torch import Tensor, nn
from torch.overrides import has_torch_function

from ..ops import pointwise_product
from ..ops._dispatch import in_transform


class PointwiseLinear(nn.Linear):
    """An `nn.Linear` whose matrix product takes the fastest backend of this machine.

    Subclass of `nn.Linear`, so that state dicts, initialisation, cost counters and quantizers see
    the linear layer that it is.

    Shape: (..., in_features) -> (..., out_features)
    """

    def forward(self, x: Tensor) -> Tensor:
        return pointwise_product(x, self.weight, self.bias)


class PointwiseConv2d(nn.Conv2d):
    """A 1x1 `nn.Conv2d` that is a pointwise product for channels_last inputs on CPUs.

    oneDNN's convolution reorders its weights at every call, and the product does not: fused
    lsnet_t at batch 8 takes 70.5 ms instead of 81.1 (one thread).

    It has the arguments of `nn.Conv2d`, since peft builds its adapters with the class of a layer.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H, W)
    """

    def forward(self, x: Tensor) -> Tensor:
        if torch.jit.is_scripting() or not self._is_product(x):
            return self._conv_forward(x, self.weight, self.bias)
        else:
            y_NHWC = pointwise_product(x.permute(0, 2, 3, 1), self.weight.flatten(1), self.bias)
            return y_NHWC.permute(0, 3, 1, 2)

    @torch.jit.unused
    def _is_product(self, x: Tensor) -> bool:
        return not (
            self.kernel_size != (1, 1)
            or self.stride != (1, 1)
            or self.padding != (0, 0)
            or self.groups != 1
            or has_torch_function((x,))
            or in_transform()  # vmap supports no memory formats
            or torch.compiler.is_compiling()  # and exporting: one convolution in the graph
            or not x.is_cpu
            or not x.is_contiguous(memory_format=torch.channels_last)
        )

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor) -> "PointwiseConv2d":
        """The layer with this weight (C_out, C_in, 1, 1) and bias (C_out,)."""
        layer = cls(weight.shape[1], weight.shape[0], 1, device=weight.device, dtype=weight.dtype)
        layer.weight, layer.bias = nn.Parameter(weight), nn.Parameter(bias)
        return layer


def use_pointwise_products(model: nn.Module) -> nn.Module:
    """Let the linear layers of any model, such as timm's, compute with `pointwise_product`.

    In place, for training as well as inference: plain `nn.Linear` and undivided 1x1 `nn.Conv2d`
    layers change their class, and nothing else; parameters, hooks and names stay. Returns `model`.
    """
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = PointwiseLinear
        elif (
            type(module) is nn.Conv2d
            and module.kernel_size == module.stride == (1, 1)
            and module.padding == (0, 0)
            and module.groups == 1
        ):
            module.__class__ = PointwiseConv2d
    return model
