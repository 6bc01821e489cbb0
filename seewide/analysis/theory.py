"""Theoretical receptive field: which input pixels can reach an output pixel at all.

A window of k taps, dilation d and stride s on a map whose neighbours are j input pixels apart and
see r of them makes

    r' = r + (k - 1) d j,    j' = s j

(Araujo, Norris and Sim, "Computing Receptive Fields of Convolutional Neural Networks", Distill
2019). Where branches meet, the widest counts. The rule is applied to the operators that the network
executes, not to its modules, so it holds for any `nn.Module`.

Some operators look everywhere: global pooling, norms over the map, attention, sampling at computed
offsets. They are counted apart, since with one of them the field is the image: `sees_everything`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from seewide.analysis._modes import OnMeta, output_of
from seewide.errors import InputError

aten = torch.ops.aten


@dataclass(frozen=True)
class TheoreticalField:
    """Height and width in input pixels, distance of neighbours, and what is beyond windows.

    `size`: (height, width) of the box that convolutions and pooling windows span; beyond the image
        where the network is deep.
    `stride`: input pixels between neighbours of the map.
    `sees_everything`: an operator on the way looks at the whole map, or where it likes.
    """

    size: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    sees_everything: bool = False

    def through(self, kernel, dilation=(1, 1), stride=(1, 1)) -> TheoreticalField:
        """After a window."""
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
        """Where two branches meet."""
        return TheoreticalField(
            tuple(map(max, self.size, other.size)),
            tuple(map(max, self.stride, other.stride)),
            self.sees_everything or other.sees_everything,
        )

    def __str__(self) -> str:
        extent = f"{self.size[0]} x {self.size[1]} px"
        return f"the image (windows span {extent})" if self.sees_everything else extent


def theoretical_receptive_field(
    model: nn.Module,
    shape: Sequence[int] = (1, 3, 224, 224),
    features: Callable[[Tensor], Tensor] | None = None,
    *,
    layer: str | None = None,
) -> TheoreticalField:
    """What the centre of a feature map can see, by the arithmetic above; nothing is computed.

    Args:
        model: any module; runs on the meta device in evaluation mode and is left as it was.
        shape: of the input, (N, C, H, W).
        features: input -> feature map; default `model.forward_features`, or the whole model where
            there is no such method.
        layer: the name of a module whose output is meant, as in `model.named_modules()`.

    Raises:
        InputError: an unknown layer, or an output that no input pixel reaches.
    """
    if layer is not None:
        features = output_of(model, layer)
    meta = OnMeta(model, features or getattr(model, "forward_features", model))
    x = meta.input(shape)
    with _Fields() as fields:
        fields.of[x] = TheoreticalField()
        y = meta.call(x)
    if y not in fields.of:
        raise InputError(f"no pixel of the input reaches the output of {type(model).__name__}")
    return fields.of[y]


class _Fields(TorchDispatchMode):
    """Follows every tensor that depends on the input."""

    def __init__(self):
        super().__init__()
        self.of: dict[Tensor, TheoreticalField] = _ByIdentity()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        y = func(*args, **(kwargs or {}))
        given = [x for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor) and x in self.of]
        if given:
            field = self.of[given[0]]
            for x in given[1:]:
                field = field | self.of[x]
            field = _after(func.overloadpacket, field, args, len(given), y)
            for leaf in tree_leaves(y):
                if isinstance(leaf, Tensor):
                    self.of[leaf] = field
        return y


def _after(op, field: TheoreticalField, args: tuple, sources: int, y) -> TheoreticalField:
    """The field of the output `y` of an operator, given that of its inputs."""
    if op is aten.convolution and not args[6]:  # not transposed
        _, weight, _, stride, _, dilation = args[:6]
        return field.through(weight.shape[2:], dilation, stride)
    if op in (aten.max_pool2d_with_indices, aten.avg_pool2d):
        return field.through(args[1], (1, 1), args[2] if len(args) > 2 and args[2] else args[1])
    if op is aten.im2col:
        return field.through(args[1], args[2], args[4])
    anywhere = (
        op in (aten.grid_sampler_2d, aten.index, aten.embedding_bag, aten._embedding_bag)
        or (op in (aten.bmm, aten.baddbmm) and sources > 1)
        or any(word in op.__name__ for word in ("attention", "adaptive"))
        or _reduces_the_map(op, args[0], y)
    )
    return replace(field, sees_everything=True) if anywhere else field


def _reduces_the_map(op, x: Tensor, y) -> bool:
    """A mean, sum or norm over both sides of a map, in any layout."""
    if op not in (aten.mean, aten.sum, aten.linalg_vector_norm, aten.norm, aten.amax, aten.max):
        return False
    if not isinstance(y, Tensor) or not isinstance(x, Tensor) or x.ndim != 4:
        return False
    kept = y.shape if y.ndim == x.ndim else ()
    return sum(a > 1 and b == 1 for a, b in zip(x.shape, kept, strict=False)) > 1 or y.ndim < 3


def _pair(value) -> tuple[int, int]:
    values = tuple(value) if isinstance(value, (tuple, list, torch.Size)) else (value,)
    return values if len(values) == 2 else values * 2


class _ByIdentity(dict):
    """Tensors as keys, kept alive so that no id is used twice."""

    def __setitem__(self, key, value):
        super().__setitem__(id(key), (key, value))

    def __getitem__(self, key):
        return super().__getitem__(id(key))[1]

    def __contains__(self, key):
        return super().__contains__(id(key))
