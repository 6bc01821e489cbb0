"""Effective receptive field: the input pixels that affect the center of the last feature map.

For an image x and feature map M of shape (N, C, h, w), the contribution of a pixel is

    P[i, j] = mean over images, sum over input channels of
              relu(d/dx[i, j] of sum over c of relu(M[c, h // 2, w // 2]))

(RepLKNet, arXiv 2203.06717, section 5 and appendix; after Luo et al., arXiv 1701.04128). Figures in
the papers show *scores* log10(P + 1), scaled to a maximum of 1. The *high-contribution area ratio*
r(t) is the share of the image that is covered by the smallest centered square with more than the
share t of the scores (RepLKNet, appendix; PeLK, arXiv 2403.07589, Table 9).
"""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.analysis._inspection import checkpointed_blocks, evaluating, input_errors, layer_output
from seewide.errors import InputError, unknown

CONTOURS = ("#4cc9f0", "#80ed99", "#ffd166", "#ff5d8f")  # of the squares, on a black to yellow map
THRESHOLDS = (0.2, 0.3, 0.5, 0.99)  # as in RepLKNet's and PeLK's tables


@dataclass(frozen=True)
class Protocol:
    """Number of images and their size; results are comparable only within one protocol.

    Attributes:
        images: number of images.
        side: height and width in pixels.
    """

    images: int
    side: int


PROTOCOLS = {
    "replknet": Protocol(images=50, side=1024),  # also SLaK, PeLK, UniRepLKNet
    "uniconvnet": Protocol(images=1000, side=224),  # UniConvNet, arXiv 2508.09000
}


@dataclass(frozen=True)
class ERF:
    """An effective receptive field.

    Attributes:
        contribution: P above, (H, W) float64.
        images: number of images that it is averaged over.
    """

    contribution: np.ndarray
    images: int

    @cached_property
    def scores(self) -> np.ndarray:
        """(H, W), 0..1: log10(P + 1) divided by its maximum, as in the papers."""
        scores = np.log10(self.contribution + 1)
        return scores / max(scores.max(), np.finfo(float).tiny)

    @property
    def support(self) -> tuple[int, int]:
        """Height and width in pixels of the bounding box of all contributing pixels."""
        rows, columns = np.nonzero(self.contribution)
        if not len(rows):
            return 0, 0
        return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1

    def side(self, threshold: float, linear: bool = False) -> int:
        """Side in pixels of the smallest centered square with more than `threshold` of the scores.

        Args:
            threshold: share, at least 0 and below 1.
            linear: use the contributions P instead of the scores. Shares of P do not depend on the
                scale of the features, as those of the logarithm do, and weight the center more.

        Raises:
            InputError: a threshold out of its range.
        """
        if not 0 <= threshold < 1:
            raise InputError(f"a threshold must be at least 0 and below 1, got {threshold}")
        mass = self.contribution if linear else self.scores
        H, W = mass.shape
        # A centered square contains the pixels up to a Chebyshev distance.
        rows, columns = np.arange(H)[:, None] - H // 2, np.arange(W) - W // 2
        ring = np.maximum(np.abs(rows), np.abs(columns))
        within = np.bincount(ring.ravel(), mass.ravel()).cumsum()
        return 2 * int(np.argmax(within > threshold * within[-1])) + 1

    def area_ratio(self, threshold: float, linear: bool = False) -> float:
        """High-contribution area ratio r(threshold), 0 to 1: area of the square over H * W."""
        H, W = self.contribution.shape
        side = self.side(threshold, linear)
        return min(side, H) * min(side, W) / (H * W)

    def area_ratios(self, thresholds: Iterable[float] = THRESHOLDS) -> dict[float, float]:
        """{t: r(t)}, a row of the papers' tables."""
        return {threshold: self.area_ratio(threshold) for threshold in thresholds}


def effective_receptive_field(
    model: nn.Module,
    images: Iterable[Tensor],
    protocol: str | Protocol | None = None,
    features: Callable[[Tensor], Tensor] | None = None,
    *,
    layer: str | None = None,
    batch: int = 1,
    recompute: bool = False,
    progress: bool = False,
) -> ERF:
    """Average contribution of the input pixels to the center of a feature map.

    One batch of images is in memory at a time, and only the average is stored.

    Args:
        model: any module; it is run in evaluation mode on its device and restored afterwards.
        images: normalized (C, H, W) images or (N, C, H, W) batches of one size: a tensor, a list,
            the images of a data loader. Without a protocol all are used, without resizing.
        protocol: "replknet" (50 images at 1024 x 1024), "uniconvnet" (1000 at 224 x 224) or
            another one. Images of another size are resized (bicubic, both sides, as the authors
            do).
        features: input -> (N, C, h, w) feature map; default: `model.forward_features`, which all
            timm models have. For other models, `features=model`.
        layer: instead of `features`, the name in `model.named_modules()` of the module whose
            output is the feature map, such as "stages.2.blocks.4".
        batch: images per forward pass. It does not affect the result.
        recompute: recompute the activations of stages and blocks (the items of each
            `nn.Sequential`) in the backward pass: a fraction of the memory, twice the time, and
            the same result.
        progress: show a progress bar.

    Raises:
        InputError: an unknown protocol or layer, too few images, features without a gradient,
            images that are not (C, H, W), or features that are not (N, C, h, w), such as tokens.
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise unknown("ERF protocol", protocol, PROTOCOLS)
        protocol = PROTOCOLS[protocol]
    if batch < 1:
        raise InputError(f"batch must be at least 1, got {batch=}")
    if layer is not None:
        features = layer_output(model, layer)
    elif features is None:
        try:
            features = model.forward_features
        except AttributeError:
            raise InputError(
                f"{type(model).__name__} has no forward_features; pass features=, a callable "
                f"from images to an (N, C, h, w) feature map, or layer="
            ) from None
    parameter = next(model.parameters(), torch.empty(0))
    wanted = None if protocol is None else protocol.images
    singles = itertools.islice(_singles(images), wanted)
    if progress:
        from rich import get_console
        from rich.progress import track

        # In a log file it would only write an empty line.
        silent = not get_console().is_terminal
        singles = track(singles, "receptive field", wanted, transient=True, disable=silent)

    total, count, size, seen = None, 0, None, 0
    blocks = checkpointed_blocks(model) if recompute else contextlib.nullcontext()
    with evaluating(model), blocks:
        for group in _groups(singles, batch):
            seen += len(group)
            x_NCHW = torch.stack(group).to(parameter.device, parameter.dtype)
            if protocol is not None and x_NCHW.shape[2:] != (protocol.side, protocol.side):
                x_NCHW = F.interpolate(
                    x_NCHW, (protocol.side, protocol.side), mode="bicubic", antialias=True
                )
            if size not in (None, x_NCHW.shape[2:]):
                raise InputError(
                    f"images must have the same size, got {tuple(size)} and "
                    f"{tuple(x_NCHW.shape[2:])}; with a protocol they are resized"
                )
            size = x_NCHW.shape[2:]
            for gradient in _contributions(model, features, x_NCHW):
                if gradient.isfinite().all():  # others are skipped, as in the authors' code
                    total = gradient if total is None else total + gradient
                    count += 1
    if wanted is not None and seen < wanted:
        raise InputError(f"this protocol needs {wanted} images, got {seen}")
    if total is None:
        raise InputError("no image has a finite gradient: there are no images, or all give NaN")
    return ERF((total / count).cpu().numpy(), count)


def draw_erf(
    erfs: Mapping[str, ERF],
    path: str | os.PathLike,
    thresholds: Iterable[float] = THRESHOLDS,
    gamma: float = 0.5,
) -> Path:
    """Score maps of several models side by side, with one color scale.

    Squares show the smallest centered squares with the shares `thresholds` of the scores; the
    share of the image that each covers is printed below the map.

    Args:
        erfs: title -> effective receptive field.
        path: of the figure.
        thresholds: shares, 0 to 1.
        gamma: colors show scores ** gamma. The papers' figures have 1, where everything around a
            bright center looks black.

    Raises:
        InputError: no receptive fields.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    from seewide.analysis import figures

    if not erfs:
        raise InputError("no receptive field to draw")
    thresholds = tuple(thresholds)
    rows = -(-len(erfs) // 4)
    columns = -(-len(erfs) // rows)
    with figures.style():
        figure, axes = figures.canvas(rows, columns, 3.6 * columns + 0.6, 3.9 * rows)
        for axis in axes[len(erfs) :]:
            axis.set_axis_off()
        for axis, (title, erf) in zip(axes, erfs.items(), strict=False):
            H, W = erf.scores.shape
            image = axis.imshow(erf.scores, cmap="magma", norm=PowerNorm(gamma, 0, 1))
            for color, threshold in zip(CONTOURS, thresholds, strict=False):
                side = erf.side(threshold)
                corner = (W // 2 - side / 2, H // 2 - side / 2)
                box = Rectangle(corner, side, side, fill=False, edgecolor=color, linewidth=1.2,
                                label=f"{threshold:.0%}")  # fmt: skip
                axis.add_patch(box)
            axis.set_xlim(-0.5, W - 0.5)
            axis.set_ylim(H - 0.5, -0.5)
            axis.set_xticks([0, W // 2, W - 1], ["0", f"{W // 2}", f"{W} px"], fontsize=7)
            axis.set_yticks([])
            axis.set_title(figures.plain(title))
            axis.spines[:].set_visible(False)
            ratios = erf.area_ratios(thresholds).items()
            axis.set_xlabel("   ".join(f"{t:.0%}: {r:.1%}" for t, r in ratios), fontsize=8)
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, shrink=0.8)
        bar.outline.set_visible(False)
        bar.set_label("log10(contribution + 1), relative to the maximum", fontsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, title="squares with", ncols=len(labels), fontsize=8,
                      title_fontsize=8, loc="outside lower center")  # fmt: skip
        return figures.save(figure, path)


def _singles(images: Iterable[Tensor]) -> Iterator[Tensor]:
    """(C, H, W) images of images and batches."""
    for tensor in images:
        if tensor.ndim not in (3, 4):
            raise InputError(
                f"images are (C, H, W) or (N, C, H, W), got shape {tuple(tensor.shape)}"
            )
        yield from tensor if tensor.ndim == 4 else tensor[None]


def _groups(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Lists of up to `size` consecutive items of equal shape."""
    group: list[Tensor] = []
    for item in items:
        if group and (len(group) == size or item.shape != group[0].shape):
            yield group
            group = []
        group.append(item)
    if group:
        yield group


def _contributions(
    model: nn.Module, features: Callable[[Tensor], Tensor], x_NCHW: Tensor
) -> Tensor:
    """(N, H, W) float64: ReLU of the gradient of the central features' ReLU, over channels."""
    x_NCHW = x_NCHW.detach().requires_grad_()
    with torch.enable_grad():
        # A view, since autograd.grad does not reach a leaf that is the input of a checkpoint.
        with input_errors(model, x_NCHW):
            y_NChw = features(x_NCHW.view_as(x_NCHW))
        if y_NChw.ndim != 4:
            raise InputError(
                f"features must be (N, C, h, w), got shape {tuple(y_NChw.shape)}; for tokens pass "
                f"features=, a callable that reshapes them to a map"
            )
        h, w = y_NChw.shape[2:]
        center = y_NChw[:, :, h // 2, w // 2].relu().sum()
        if not center.requires_grad:
            raise InputError("the features have no gradient with respect to the image")
        (gradient_NCHW,) = torch.autograd.grad(center, x_NCHW)
    return gradient_NCHW.relu().sum(1, dtype=torch.float64)
