"""Inside a network: kernels as they act, feature maps, aggregation weights, position maps.

Everything is found by its name in `model.named_modules()` or `named_parameters()`, so a picture
needs no knowledge of classes:

* PeLK's expanded kernels, a re-parameterized block's merged kernel, SLaK's crossed strips: the
  `impulse_response` of the mixer;
* LSNet's aggregation weights: `feature_maps(model, x, [... "weight_norm"])`, then `tap_means`;
  what large-kernel perception sees, and small-kernel aggregation makes of it: the maps of "lkp"
  and of the LSConv itself;
* PeLK's positional embeddings: the parameters "pos_embed";
* the flow of the receptive field through UniConvNet's three-layer aggregator: `field_flow` over
  "rfa.layers.0", ".1", ".2".
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from seewide.analysis._modes import named_module, studied
from seewide.analysis.erf import ERF, Protocol, effective_receptive_field
from seewide.errors import InputError


def impulse_response(
    mixer: nn.Module | Callable[[Tensor], Tensor], channels: int, side: int
) -> np.ndarray:
    """(channels, side, side): the kernel that a linear mixer amounts to, as a convolution's weight.

    One pixel of 1 in each channel, all else 0, goes in; what a zero image gives (the bias) is taken
    off, and the rest is flipped, since deep learning's convolution is a correlation. For a network
    that is not linear it is the response to that one pixel.

    Args:
        mixer: (1, channels, H, W) -> the same shape; modules are run in evaluation mode.
        side: odd, at least the kernel's size.

    Raises:
        InputError: an even side, or a mixer that changes the shape.
    """
    if side % 2 == 0 or side < 1:
        raise InputError(f"the side of a kernel must be odd, got {side=}")
    if isinstance(mixer, nn.Module):
        with studied(mixer):
            return _response(mixer, next(mixer.parameters()), channels, side)
    return _response(mixer, torch.empty(0), channels, side)


@torch.no_grad()
def _response(mixer, like: Tensor, channels: int, side: int) -> np.ndarray:
    # Twice the side, so that every pixel of the answer sees padding only where there are zeros.
    zero = torch.zeros(1, channels, 2 * side - 1, 2 * side - 1).to(like)
    impulse = zero.clone()
    impulse[:, :, side - 1, side - 1] = 1
    response, rest = mixer(impulse), mixer(zero)
    if response.shape != zero.shape:
        raise InputError(
            f"a mixer keeps the shape of a map, this makes {tuple(response.shape)} of "
            f"{tuple(zero.shape)}"
        )
    half = side // 2
    middle = slice(side - 1 - half, side + half)
    return (response - rest)[0, :, middle, middle].flip(1, 2).cpu().numpy()


def feature_maps(model: nn.Module, x_NCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """What modules put out in one forward pass in evaluation mode, by name.

    Raises:
        InputError: an unknown name, or a module that was not reached or puts out no tensor.
    """
    found: dict[str, object] = {}

    def keep(name: str) -> Callable:
        return lambda module, inputs, output: found.__setitem__(name, output)

    hooks = [named_module(model, name).register_forward_hook(keep(name)) for name in layers]
    try:
        with studied(model), torch.no_grad():
            model(x_NCHW)
    finally:
        for hook in hooks:
            hook.remove()
    for name in layers:
        if not isinstance(found.get(name), Tensor):
            raise InputError(f"the layer {name} put out no tensor in this pass")
    return {name: found[name] for name in layers}


def tap_means(weights_NCHW: Tensor, taps: int) -> np.ndarray:
    """(taps, H, W): aggregation weights of the first image, averaged over their sets.

    Args:
        weights_NCHW: (N, sets * taps, H, W), the taps of a set side by side, as LSConv's
            `weight_norm` puts them out; taps are numbered row by row.

    Raises:
        InputError: channels that are no multiple of the taps.
    """
    channels = weights_NCHW.shape[1]
    if weights_NCHW.ndim != 4 or channels % taps:
        raise InputError(
            f"weights of {taps} taps are (N, sets * {taps}, H, W), got shape "
            f"{tuple(weights_NCHW.shape)}"
        )
    return weights_NCHW[0].unflatten(0, (-1, taps)).mean(0).cpu().numpy()


def field_flow(
    model: nn.Module,
    images: Sequence[Tensor],
    layers: Iterable[str],
    protocol: str | Protocol | None = None,
) -> dict[str, ERF]:
    """The effective receptive field at each of several layers, on the same images."""
    return {name: effective_receptive_field(model, images, protocol, layer=name) for name in layers}


def draw_maps(
    maps: Mapping[str, np.ndarray], path: str | os.PathLike, signed: bool = False, columns: int = 6
) -> Path:
    """A grid of (H, W) maps, each on its own scale.

    Args:
        signed: blue below zero, red above, white at zero, as for kernels; otherwise dark to light.
    """
    from seewide.analysis import pictures

    if not maps:
        raise InputError("no map to draw")
    for name, values in maps.items():
        if np.ndim(values) != 2:
            raise InputError(f"a map is (H, W), {name} has shape {np.shape(values)}")
    columns = min(columns, len(maps))
    rows = math.ceil(len(maps) / columns)
    with pictures.style():
        figure, axes = pictures.canvas(rows, columns, 2.0 * columns, 2.2 * rows)
        for axis in axes:
            axis.set_axis_off()
        for axis, (name, values) in zip(axes, maps.items(), strict=False):
            values = np.asarray(values, dtype=float)
            reach = np.abs(values).max() or 1.0
            low, high = (-reach, reach) if signed else (values.min(), values.max())
            axis.imshow(values, cmap="RdBu_r" if signed else "viridis", vmin=low, vmax=high)
            axis.set_title(name, fontsize=8, loc="center", pad=3)
        return pictures.save(figure, path)
