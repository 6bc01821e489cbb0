"""Structural re-parameterization: weight algebra, and `fuse`, which checks itself.

A convolution followed by a batch norm in evaluation is a convolution; parallel convolutions are
one convolution whose kernel is the sum of theirs, once each is brought to the same size. So a
block trained with many branches runs as a single layer.

The layers know how to merge themselves: `fuse()` of a multi-branch layer returns the plain layer
that replaces it, the hook that timm's `reparameterize_model` looks for as well.
"""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from timm.models import reparameterize_model
from torch import Tensor, nn

from .errors import InputError
from .numerics import NETWORK, tolerance
from .numerics import deviation as deviation_of

log = logging.getLogger(__name__)


def batch_norm_affine(norm: nn.modules.batchnorm._BatchNorm) -> tuple[Tensor, Tensor]:
    """Scale and shift (C,) that a batch norm applies in evaluation."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shift = -norm.running_mean * scale
    return scale, shift if norm.bias is None else shift + norm.bias


def fold_batch_norm(
    weight: Tensor, bias: Tensor | None, norm: nn.modules.batchnorm._BatchNorm
) -> tuple[Tensor, Tensor]:
    """Kernel and bias of `norm(layer(x))`, for a convolution's or a linear layer's weight."""
    scale, shift = batch_norm_affine(norm)
    folded = weight * scale.reshape(-1, *[1] * (weight.ndim - 1))
    return folded, shift if bias is None else shift + bias * scale


def undilate(weight: Tensor, dilation: int) -> Tensor:
    """The dense kernel of a dilated convolution: `dilation - 1` zeros between its taps.

    UniRepLKNet, section 3.1 and Appendix A: a transposed convolution of the kernel with an
    identity, stride `dilation`, for dense and grouped kernels input channel by input channel.
    It comes to writing the taps at a stride, whatever the groups.

    Args:
        weight: (C_out, C_in / groups, kh, kw).

    Returns:
        (C_out, C_in / groups, (kh - 1) * dilation + 1, (kw - 1) * dilation + 1)
    """
    if dilation < 1:
        raise InputError(f"dilation must be at least 1, got {dilation=}")
    kh, kw = weight.shape[2:]
    size = ((kh - 1) * dilation + 1, (kw - 1) * dilation + 1)
    dense = weight.new_zeros(*weight.shape[:2], *size)
    dense[:, :, ::dilation, ::dilation] = weight
    return dense


def center_pad(weight: Tensor, kernel_size: tuple[int, int]) -> Tensor:
    """The same kernel with a frame of zeros, (..., kh, kw) -> (..., *kernel_size)."""
    margins = [size - have for size, have in zip(kernel_size, weight.shape[-2:], strict=True)]
    if any(margin < 0 or margin % 2 for margin in margins):
        have = "x".join(str(size) for size in weight.shape[-2:])
        want = "x".join(str(size) for size in kernel_size)
        raise InputError(f"a {have} kernel has no centred place in a {want} one")
    top, left = margins[0] // 2, margins[1] // 2
    return F.pad(weight, (left, left, top, top))


def fold_parallel(branches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Kernel and bias of a sum of convolutions, given (undilated kernel, bias) of each."""
    size = (max(w.shape[2] for w, _ in branches), max(w.shape[3] for w, _ in branches))
    kernels, biases = zip(*branches, strict=True)
    return sum(center_pad(kernel, size) for kernel in kernels), sum(biases)


@dataclass(frozen=True)
class Fusion:
    """What `fuse` did: tensors and parameters before and after, and how far the outputs moved."""

    parameters_before: int
    parameters_after: int
    deviation: float | None  # relative to the largest output; None on the meta device

    def __str__(self) -> str:
        checked = "unchecked" if self.deviation is None else f"deviation {self.deviation:.1e}"
        before, after = self.parameters_before / 1e6, self.parameters_after / 1e6
        return f"fused {before:.2f} M parameters into {after:.2f} M, {checked}"


def fuse(model: nn.Module, example: Tensor | None = None) -> nn.Module:
    """The inference form of `model`: a copy with all branches, batch norms and scales folded.

    The copy is in evaluation mode; `model` is left as it is. See `fuse_checked`, which also
    returns the deviation that this function logs.
    """
    fused, report = fuse_checked(model, example)
    log.info("%s", report)
    return fused


def fuse_checked(model: nn.Module, example: Tensor | None = None) -> tuple[nn.Module, Fusion]:
    """`fuse(model)` and its report.

    Args:
        model: any module; layers that have `fuse()` are replaced by what it returns.
        example: an input to compare both forms on; made from timm's `pretrained_cfg` if absent.

    Raises:
        InputError: no example, and none can be made.
        RuntimeError: the two forms do not agree; nothing was changed.
    """
    before = nn.Sequential(copy.deepcopy(model)).eval()
    if example is None:
        example = probe(model)
    with torch.no_grad():
        # In a Sequential, so that the root itself may be a layer that fuses.
        after = reparameterize_model(before).eval()
        deviation = None if example.is_meta else deviation_of(after(example), before(example))
        limit = tolerance(example.dtype, NETWORK)
        if deviation is not None and not deviation <= limit:
            # A network may magnify rounding (a one-hot attention: a hundred times); a wrong sum of
            # branches stays as wrong in float64.
            exact = copy.deepcopy(before).double()
            folded = reparameterize_model(exact).eval()
            magnified = deviation_of(folded(example.double()), exact(example.double()))
            if not magnified <= NETWORK[torch.float64]:
                raise RuntimeError(
                    f"the fused model deviates by {deviation:.1e} relative, more than the "
                    f"{limit:.0e} that rounding in {example.dtype} explains, and by "
                    f"{magnified:.1e} in float64"
                )
    count = [sum(p.numel() for p in form.parameters()) for form in (before, after)]
    return after[0], Fusion(count[0], count[1], deviation)


def probe(model: nn.Module, batch: int = 2) -> Tensor:
    """A small random input that `model` takes: its own `example_input()`, or by its timm config."""
    first = next(model.parameters(), None)
    own = getattr(model, "example_input", None)  # models of `seewide.modalities`
    if own is not None:
        return own().to(device=first.device, dtype=first.dtype)
    config = getattr(model, "pretrained_cfg", None) or {}
    chans = getattr(model, "in_chans", None) or config.get("input_size", (None,))[0]
    if first is None or chans is None:
        raise InputError(
            f"{type(model).__name__} does not say what input it takes; "
            "give fuse(model, example=...)"
        )
    _, height, width = config.get("input_size", (chans, 224, 224))
    if not config.get("fixed_input_size", False):  # not square, and not too small for stride 64
        height, width = min(height, 96), min(width, 64)
    generator = torch.Generator().manual_seed(0)
    example = torch.randn(batch, chans, height, width, generator=generator)
    return example.to(device=first.device, dtype=first.dtype)
