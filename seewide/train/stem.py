"""Networks for small images: lower strides in the stem of any hierarchical network of timm.

At 32 px a network of total stride 32 ends with a single position. A convolution of stride 1 has the
same weights as one of stride 2, so only the sizes of the feature maps change.
"""

from __future__ import annotations

import math
from itertools import groupby

import torch
from torch import nn

from seewide.errors import InputError

STAGES = 8  # what the three halvings between four stages make of the stride
Strided = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d


def set_stem_stride(model: nn.Module, name: str, wanted: int) -> nn.Module:
    """Set the stride of the first stage to `wanted`, and so the total stride to 8 times that.

    The stem is everything before the last three halvings: stride 8 in LSNet, 4 in most others, as
    one patchify convolution or as several layers. The first layers that reduce the map are changed
    first; parallel branches are changed together.

    Args:
        model: with timm's `feature_info`; changed in place and returned.
        name: for messages.
        wanted: stride of the first stage in pixels; a divisor of the network's own.

    Raises:
        InputError: a network without stages (a plain vision transformer), or not a divisor.
    """
    strides = [level["reduction"] for level in getattr(model, "feature_info", [])]
    stem, rest = divmod(max(strides, default=0), STAGES)
    if rest or not stem or len(set(strides)) < 4:
        raise InputError(f"{name} does not have four stages, so stem_stride must be 0")
    if stem % wanted:
        allowed = ", ".join(str(n) for n in range(1, stem + 1) if stem % n == 0)
        raise InputError(f"stem_stride of {name} must be one of {allowed}, got {wanted}")
    left = stem // wanted
    for branches in _strided(model, 2 * STAGES * stem):
        cut = math.gcd(left, _stride(branches[0]))
        for layer in branches:
            _lower(layer, _stride(layer) // cut)
        left //= cut
        if left == 1:
            break
    for level in model.feature_info:
        level["reduction"] = max(1, level["reduction"] * wanted // stem)
    return model


@torch.no_grad()
def _strided(model: nn.Module, side: int) -> list[list[Strided]]:
    """The layers that reduce the map, in order of execution; those of the same map together."""
    found: list[tuple[int, Strided]] = []
    hooks = [
        layer.register_forward_pre_hook(
            lambda layer, inputs: found.append((inputs[0].shape[-1], layer))
        )
        for layer in model.modules()
        if isinstance(layer, Strided) and _stride(layer) > 1
    ]
    training = model.training
    try:
        model.eval()(torch.zeros(1, 3, side, side))
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    maps = groupby(found, key=lambda pair: pair[0])
    return [[layer for _, layer in branches] for _, branches in maps]


def _stride(layer: Strided) -> int:
    return layer.stride if isinstance(layer.stride, int) else layer.stride[0]


def _lower(layer: Strided, stride: int) -> None:
    if not isinstance(layer, nn.Conv2d):
        layer.stride = stride
        return
    size = layer.kernel_size[0]
    if layer.padding == (0, 0) and size == layer.stride[0]:
        # Adjacent patches now overlap, and start outside, so that the map has side / stride
        # positions (or one more, which the next halving drops).
        layer.padding = ((size - stride + 1) // 2,) * 2
    layer.stride = (stride, stride)
