"""The ways to compute one convolution or product, timed on this machine.

A way is a layout of the weight and a function that reads it. The fastest one of each distinct
shape is found by running all of them on random input, a few milliseconds each.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..kernels.cpu import depthwise, pointwise
from ..kernels.cpu.product_choice import least_seconds

CLEARLY = 1.03  # another way replaces torch's plain one only if so many times as fast
Shape = tuple[int, ...]

# TorchScript's tracer cannot record calls of these two operators (their argument of optional
# numbers), but it can record calls of functions that call them, written in its own language.
_PRODUCT = """
graph(%x : Tensor, %weight : Tensor, %bias : Tensor?, %name : str, %algorithm : str?):
  %none : Scalar?[] = prim::ListConstruct()
  %y : Tensor = mkldnn::_linear_pointwise(%x, %weight, %bias, %name, %none, %algorithm)
  return (%y)
"""
_CONVOLUTION = """
graph(%x : Tensor, %weight : Tensor, %bias : Tensor?, %padding : int[], %stride : int[],
      %dilation : int[], %groups : int, %name : str, %algorithm : str?):
  %none : Scalar?[] = prim::ListConstruct()
  %y : Tensor = mkldnn::_convolution_pointwise(%x, %weight, %bias, %padding, %stride, %dilation,
                                               %groups, %name, %none, %algorithm)
  return (%y)
"""


@functools.cache
def _function(name: str, source: str) -> Callable[..., Tensor]:
    return torch._C._create_function_from_graph(name, torch._C.parse_ir(source))


@dataclass(frozen=True)
class Way:
    """One way to compute `activation(layer(x))`.

    Attributes:
        layout: name of the weight's layout, a key of LAYOUTS.
        run: (x, weight in that layout, bias or None, activation, *rest) -> result.
    """

    layout: str
    run: Callable[..., Tensor]


def _transposed(weight: Tensor, *rest) -> Tensor:
    return weight.t().contiguous()


def _channels_last(weight: Tensor, *rest) -> Tensor:
    return weight.contiguous(memory_format=torch.channels_last)


def _packed_product(weight: Tensor, x: Shape, *rest) -> Tensor:
    return pointwise.pack(weight, x[0])


def _packed_convolution(
    weight: Tensor, x: Shape, stride: list, padding: list, dilation: list, groups: int
) -> Tensor:
    return torch._C._nn.mkldnn_reorder_conv2d_weight(
        weight.contiguous().to_mkldnn(), padding, stride, dilation, groups, list(x)
    )


LAYOUTS: dict[str, Callable[..., Tensor]] = {
    "plain": lambda weight, *rest: weight.contiguous(),
    "transposed": _transposed,
    "as_convolution": lambda weight, *rest: _channels_last(weight[:, :, None, None]),
    "packed_product": _packed_product,
    "channels_last": _channels_last,
    "packed_convolution": _packed_convolution,
}


def _linear(x, weight, bias, activation):
    return pointwise.apply_activation(F.linear(x, weight, bias), activation)


def _addmm(x, weight, bias, activation):
    y = torch.mm(x, weight) if bias is None else torch.addmm(bias, x, weight)
    return pointwise.apply_activation(y, activation)


def _as_convolution(x, weight, bias, activation):
    x_NCHW = x.contiguous().view(1, x.shape[0], 1, x.shape[1]).permute(0, 3, 1, 2)
    y = F.conv2d(x_NCHW, weight, bias).permute(0, 2, 3, 1)
    return pointwise.apply_activation(y.reshape(x.shape[0], weight.shape[0]), activation)


def _onednn(x, weight, bias, activation):
    name, algorithm = pointwise.ONEDNN_NAMES[activation]
    return _function("product", _PRODUCT)(x, weight, bias, name, algorithm)


def _onednn_then(x, weight, bias, activation):
    return pointwise.apply_activation(_onednn(x, weight, bias, "none"), activation)


def product_ways(x: Tensor, weight: Tensor) -> list[Way]:
    """Ways to compute x (M, C_in) times weight (C_out, C_in); the plain one first."""
    ways = [Way("plain", _linear), Way("transposed", _addmm)]
    if x.dtype == torch.float32:
        ways.append(Way("as_convolution", _as_convolution))
    if pointwise.has_operator() and weight.numel() and x.shape[0]:
        ways += [Way("packed_product", _onednn), Way("packed_product", _onednn_then)]
    return ways


def _conv2d(x, weight, bias, activation, stride, padding, dilation, groups):
    y = F.conv2d(x, weight, bias, stride, padding, dilation, groups)
    return pointwise.apply_activation(y, activation)


def _packed_conv2d(x, weight, bias, activation, stride, padding, dilation, groups):
    name, algorithm = pointwise.ONEDNN_NAMES[activation]
    return _function("convolution", _CONVOLUTION)(
        x, weight, bias, padding, stride, dilation, groups, name, algorithm
    )


def _packed_conv2d_then(x, weight, bias, activation, *rest):
    y = _packed_conv2d(x, weight, bias, "none", *rest)
    return pointwise.apply_activation(y, activation)


def _contiguous_conv2d(x, weight, bias, activation, stride, padding, dilation, groups):
    y = F.conv2d(x.contiguous(), weight, bias, stride, padding, dilation, groups)
    y = pointwise.apply_activation(y, activation)
    return y.contiguous(memory_format=torch.channels_last)


def _our_depthwise(x, weight, bias, activation, stride, padding, dilation, groups):
    y = depthwise.depthwise_conv2d(x, weight, bias, dilation[0])
    return pointwise.apply_activation(y, activation)


def _pointwise_conv2d(x, weight, bias, activation, *rest):
    y = F.linear(x.permute(0, 2, 3, 1), weight, bias)
    return pointwise.apply_activation(y, activation).permute(0, 3, 1, 2)


def _pointwise_addmm(x, weight, bias, activation, *rest):
    N, C, H, W = x.shape
    y = _addmm(x.permute(0, 2, 3, 1).reshape(-1, C), weight, bias, activation)
    return y.view(N, H, W, -1).permute(0, 3, 1, 2)


def convolution_ways(x: Tensor, weight: Tensor, stride, padding, dilation, groups) -> list[Way]:
    """Ways to compute a convolution of x (N, C, H, W); the plain one first."""
    last = x.is_contiguous(memory_format=torch.channels_last)
    ways = [Way("plain", _conv2d)]
    if last:
        ways.append(Way("channels_last", _conv2d))
    kh, kw = weight.shape[2:]
    if pointwise.has_operator() and x.numel() and last:  # whose result is always channels_last
        ways += [Way("packed_convolution", _packed_conv2d)]
        ways += [Way("packed_convolution", _packed_conv2d_then)]
    same = tuple(padding) == (kh // 2 * dilation[0], kw // 2 * dilation[1])
    odd = kh % 2 == kw % 2 == 1 and dilation[0] == dilation[1]
    if groups == x.shape[1] == weight.shape[0] and kh * kw > 9 and max(stride) == 1:
        if last:
            ways.append(Way("plain", _contiguous_conv2d))
        if same and odd:
            ways.append(Way("plain", _our_depthwise))
    if kh == kw == groups == max(stride) == 1 and max(padding) == 0 and last:
        ways += [Way("matrix", _pointwise_conv2d), Way("matrix_transposed", _pointwise_addmm)]
    return ways


LAYOUTS["matrix"] = lambda weight, *rest: weight.flatten(1).contiguous()
LAYOUTS["matrix_transposed"] = lambda weight, *rest: weight.flatten(1).t().contiguous()


class Choices:
    """The fastest way for each distinct shape, timed at the first request."""

    def __init__(self):
        self.chosen: dict[tuple, Way] = {}
        self.times: dict[tuple, tuple[float, float]] = {}  # seconds: the plain way, the chosen one

    def best(self, ways: list[Way], x: Tensor, weight: Tensor, bias, activation: str, rest) -> Way:
        """Time the ways on input like the fake tensor `x` and return the fastest."""
        shapes = (tuple(x.shape), x.stride(), x.dtype, tuple(weight.shape), bias is None)
        signature = (*shapes, activation, repr(rest), tuple(way.layout for way in ways))
        if signature in self.chosen:
            return self.chosen[signature]
        real = torch.empty_strided(x.shape, x.stride(), dtype=x.dtype).normal_()
        seconds = []
        with torch.inference_mode():
            weight = torch.empty(weight.shape, dtype=weight.dtype).normal_()
            for way in ways:
                laid_out = LAYOUTS[way.layout](weight, tuple(x.shape), *rest)
                call = lambda way=way, w=laid_out: way.run(real, w, bias, activation, *rest)  # noqa: E731
                seconds.append(least_seconds(call, budget=0.004, least=4))
        fastest = min(range(len(ways)), key=seconds.__getitem__)
        if seconds[0] < CLEARLY * seconds[fastest]:
            fastest = 0
        self.chosen[signature] = ways[fastest]
        self.times[signature] = (seconds[0], seconds[fastest])
        return ways[fastest]
