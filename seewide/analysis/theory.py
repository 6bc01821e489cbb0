"""Theoretical receptive field: the input pixels that an output pixel can depend on.

A window of size k, dilation d and stride s on a map with a receptive field of r input pixels and a
distance of j input pixels between neighbors gives

    r' = r + (k - 1) d j,    j' = s j

(Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill
2019). Where branches meet, the maximum is taken. The rule is applied to the executed operators, not
to modules, so it holds for any `nn.Module`.

With global pooling, norms over the map, attention, or sampling at computed offsets, a pixel can
depend on the entire image; the flag `is_global` records that.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seewide.analysis._inspection import MetaModel, layer_output
from seewide.errors import InputError

aten = torch.ops.aten


@dataclass(frozen=True)
class TheoreticalField:
    """A theoretical receptive field.

    Attributes:
        size: (height, width) in input pixels of the box that convolution and pooling windows span;
            larger than the image for deep networks.
        stride: (vertical, horizontal) input pixels between neighbors of the map.
        is_global: whether some operator can use the entire map.
    """

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    is_global: bool = False

    def through(self, kernel, dilation=(1, 1), stride=(1, 1)) -> TheoreticalField:
        """The field after a convolution or pooling window."""
        kernel, dilation, stride = _pair(kernel), _pair(dilation), _pair(stride)
        return replace(
            self,
            size=tuple(
                r + (k - 1) * d * j
                for r, k, d, j in zip(self.size, kernel, dilation, self.stride, strict=True)
            ),
            stride=tuple(s * j for s, j in zip(stride, self.stride, strict=True)),
        )

    def __or__(self, other: TheoreticalField) -> TheoreticalField:
        """The field after two branches are joined."""
        return TheoreticalField(
            tuple(map(max, self.size, other.size)),
            tuple(map(max, self.stride, other.stride)),
            self.is_global or other.is_global,
        )

    def __str__(self) -> str:
        extent = f"{self.size[0]} x {self.size[1]} px"
        return f"the image (windows span {extent})" if self.is_global else extent


def theoretical_receptive_field(
    model: nn.Module,
    shape: Sequence[int] = (1, 3, 224, 224),
    features: Callable[[Tensor], Tensor] | None = None,
    *,
    layer: str | None = None,
) -> TheoreticalField:
    """The theoretical receptive field of the center of a feature map; no values are computed.

    Args:
        model: any module; it is run on the meta device in evaluation mode and restored afterwards.
        shape: of the input, (N, C, H, W).
        features: input -> feature map; default: `model.forward_features`, or `model` if it has no
            such method.
        layer: instead of `features`, the name of a module in `model.named_modules()`.

    Raises:
        InputError: an unknown layer, or an output that does not depend on the input.
    """
    if layer is not None:
        features = layer_output(model, layer)
    meta = MetaModel(model, features or getattr(model, "forward_features", model))
    x = meta.input(shape)
    with _Fields() as fields:
        fields.of[x] = TheoreticalField()
        y = meta.call(x)
    if y not in fields.of:
        raise InputError(f"the output of {type(model).__name__} does not depend on the input")
    return fields.of[y]


class _Fields(TorchDispatchMode):
    """Tracks the receptive field of each tensor that depends on the input."""

    def __init__(self):
        super().__init__()
        self.of: dict[Tensor, TheoreticalField] = _ByIdentity()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        y = func(*args, **(kwargs or {}))
        inputs = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x in self.of]
        if inputs:
            field = self.of[inputs[0]]
            for x in inputs[1:]:
                field = field | self.of[x]
            field = _after(func.overloadpacket, field, args, len(inputs), y)
            for leaf in tree_leaves(y):
                if isinstance(leaf, Tensor):
                    self.of[leaf] = field
        return y


def _after(op, field: TheoreticalField, args: tuple, sources: int, y) -> TheoreticalField:
    """The field of the output `y` of an operator whose inputs have `field`."""
    if op is aten.convolution and not args[6]:  # not transposed
        _, weight, _, stride, _, dilation = args[:6]
        return field.through(weight.shape[2:], dilation, stride)
    if op in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        return field.through(args[1], (1, 1), args[2] if len(args) > 2 and args[2] else args[1])
    if op is aten.im2col:
        return field.through(args[1], args[2], args[4])
    is_global = (
        op in (aten.grid_sampler_2d, aten.index, aten.embedding_bag, aten._embedding_bag)
        or (op in (aten.bmm, aten.baddbmm) and sources > 1)
        or any(word in op.__name__ for word in ("attention", "adaptive"))
        or _reduces_map(op, args[0], y)
    )
    return replace(field, is_global=True) if is_global else field


def _reduces_map(op, x: Tensor, y) -> bool:
    """Whether this is a mean, sum or norm over height and width, in any memory layout."""
    if op not in (aten.mean, aten.sum, aten.linalg_vector_norm, aten.norm, aten.amax, aten.max):
        return False
    if not isinstance(y, Tensor) or not isinstance(x, Tensor) or x.ndim != 4:
        return False
    shape = y.shape if y.ndim == x.ndim else ()
    return sum(a > 1 and b == 1 for a, b in zip(x.shape, shape, strict=False)) > 1 or y.ndim < 3


def _pair(value) -> tuple[int, int]:
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,)
    return values if len(values) == 2 else values * 2


class _ByIdentity(dict):
    """A dictionary with tensors as keys, which it keeps alive so that no id is reused."""

    def __setitem__(self, key, value):
        super().__setitem__(id(key), (key, value))

    def __getitem__(self, key):
        return super().__getitem__(id(key))[1]

    def __contains__(self, key):
        return super().__contains__(id(key))
