"""Kernels, feature maps, aggregation weights and position maps inside a network.

Modules are found by their names in `model.named_modules()`, so no function depends on their class:

* the effective kernel of a token mixer, such as PeLK's expanded kernel, the fused kernel of a
  re-parameterized block, or SLaK's two stripes: `impulse_response`;
* LSNet's aggregation weights: `feature_maps(model, x, ["....mixer.weight_norm"])`, then
  `accumulated_coefficients` (LSNet, Figure 5);
* the output of the depthwise convolution of LSNet's large-kernel perception:
  `feature_maps(model, x, ["....mixer.lkp.dw"])` (LSNet, Figure 6);
* the effective receptive field after each layer, such as "rfa.layers.0" to ".2" of UniConvNet's
  receptive field aggregator: `erf_by_layer`.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.analysis._inspection import evaluating, find_module
from seewide.analysis.erf import ERF, Protocol, effective_receptive_field
from seewide.errors import InputError


def impulse_response(
    mixer: nn.Module | Callable[[Tensor], Tensor], channels: int, size: int
) -> np.ndarray:
    """(channels, size, size): the depthwise kernel that a linear token mixer amounts to.

    The response to a unit impulse in the center of each channel, minus the response to zeros (the
    bias), flipped, since convolutions in deep learning are correlations. For a mixer that is not
    linear it is the response to this one input.

    Args:
        mixer: (1, channels, H, W) -> (1, channels, H, W); modules are run in evaluation mode.
        channels: of the mixer.
        size: odd, at least the size of the kernel.

    Raises:
        InputError: an even size, or a mixer that changes the shape.
    """
    if size % 2 == 0 or size < 1:
        raise InputError(f"the size of a kernel must be odd, got {size=}")
    if isinstance(mixer, nn.Module):
        with evaluating(mixer):
            return _response(mixer, next(mixer.parameters()), channels, size)
    return _response(mixer, torch.empty(0), channels, size)


@torch.no_grad()
def _response(mixer, options: Tensor, channels: int, size: int) -> np.ndarray:
    # The map is twice as large as the kernel, so that padding affects no returned pixel.
    zeros = torch.zeros(1, channels, 2 * size - 1, 2 * size - 1).to(options)
    impulse = zeros.clone()
    impulse[:, :, size - 1, size - 1] = 1
    response, bias = mixer(impulse), mixer(zeros)
    if response.shape != zeros.shape:
        raise InputError(
            f"a token mixer preserves the shape of the map, this one returns "
            f"{tuple(response.shape)} for {tuple(zeros.shape)}"
        )
    half = size // 2
    center = slice(size - 1 - half, size + half)
    return (response - bias)[0, :, center, center].flip(1, 2).cpu().numpy()


def feature_maps(model: nn.Module, x_NCHW: Tensor, layers: Sequence[str]) -> dict[str, Tensor]:
    """Outputs of several modules in one forward pass in evaluation mode, by name.

    Raises:
        InputError: an unknown name, or a module that is not run or returns no tensor.
    """
    found: dict[str, object] = {}

    def store(name: str) -> Callable:
        return lambda module, inputs, output: found.__setitem__(name, output)

    hooks = [find_module(model, name).register_forward_hook(store(name)) for name in layers]
    try:
        with evaluating(model), torch.no_grad():
            model(x_NCHW)
    finally:
        for hook in hooks:
            hook.remove()
    for name in layers:
        if not isinstance(found.get(name), Tensor):
            raise InputError(f"the layer {name} returned no tensor in this forward pass")
    return {name: found[name] for name in layers}


def accumulated_coefficients(weights_NCHW: Tensor, taps: int) -> np.ndarray:
    """(H, W): the accumulated aggregation coefficient of each token in the first image.

    Each output pixel p of small-kernel aggregation is a sum of its neighbors q with weights
    w(p, q). The coefficient of a token q is the sum of w(p, q) over all p, averaged over the sets
    of weights: how much the token contributes to the output (LSNet, arXiv 2503.23135, Figure 5).

    Args:
        weights_NCHW: (N, sets * taps, H, W), the taps of each set contiguous and row by row, as
            LSConv's `weight_norm` returns them.
        taps: number of weights of a pixel, the square of an odd number.

    Raises:
        InputError: channels that are not a multiple of `taps`, or `taps` of no odd square kernel.
    """
    k = math.isqrt(taps) if taps > 0 else 0
    if k * k != taps or k % 2 == 0:
        raise InputError(f"taps must be the square of an odd number, got {taps=}")
    if weights_NCHW.ndim != 4 or weights_NCHW.shape[1] % taps:
        raise InputError(
            f"weights of {taps} taps are (N, sets * {taps}, H, W), got shape "
            f"{tuple(weights_NCHW.shape)}"
        )
    H, W = weights_NCHW.shape[2:]
    mean_1TP = weights_NCHW[0].unflatten(0, (-1, taps)).mean(0).flatten(1)[None]
    return F.fold(mean_1TP, (H, W), k, padding=k // 2)[0, 0].cpu().numpy()


def erf_by_layer(
    model: nn.Module,
    images: Sequence[Tensor],
    layers: Iterable[str],
    protocol: str | Protocol | None = None,
) -> dict[str, ERF]:
    """The effective receptive field of the output of each layer, for the same images."""
    return {name: effective_receptive_field(model, images, protocol, layer=name) for name in layers}


def draw_maps(
    maps: Mapping[str, np.ndarray], path: str | os.PathLike, signed: bool = False, columns: int = 6
) -> Path:
    """A grid of maps, each with its own color scale.

    Args:
        maps: title -> (H, W).
        path: of the figure.
        signed: a diverging color map, blue below zero and red above, for kernels.
        columns: maps per row.

    Raises:
        InputError: no maps, or a map with another number of dimensions.
    """
    from seewide.analysis import figures

    if not maps:
        raise InputError("no map to draw")
    for name, values in maps.items():
        if np.ndim(values) != 2:
            raise InputError(f"a map is (H, W), {name} has shape {np.shape(values)}")
    columns = min(columns, len(maps))
    rows = math.ceil(len(maps) / columns)
    with figures.style():
        figure, axes = figures.canvas(rows, columns, 2.0 * columns, 2.2 * rows)
        for axis in axes:
            axis.set_axis_off()
        for axis, (name, values) in zip(axes, maps.items(), strict=False):
            values = np.asarray(values, dtype=float)
            limit = np.abs(values).max() or 1.0
            low, high = (-limit, limit) if signed else (values.min(), values.max())
            axis.imshow(values, cmap="RdBu_r" if signed else "viridis", vmin=low, vmax=high)
            axis.set_title(figures.plain(name), fontsize=8, loc="center", pad=3)
        return figures.save(figure, path)
