"""Effective receptive field: which input pixels the centre of the last feature map listens to.

For an image x and feature map M of shape (N, C, h, w), the contribution of a pixel is

    P[i, j] = mean over images, sum over input channels of
              relu(d/dx[i, j] of sum over c of relu(M[c, h // 2, w // 2]))

(RepLKNet, arXiv 2203.06717, section 5 and appendix; after Luo et al., arXiv 1701.04128). Published
figures take *scores* log10(P + 1), scaled to a maximum of 1, and from them the *high-contribution
area ratio* r(t): the share of the image that the smallest centred square covers which holds more
than the share t of the scores (RepLKNet appendix, PeLK arXiv 2403.07589 Table 9).
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

from seewide.analysis._modes import output_of, recomputed, studied, taking_images
from seewide.errors import InputError, unknown

CONTOURS = ("#4cc9f0", "#80ed99", "#ffd166", "#ff5d8f")  # of the squares, on black to yellow
THRESHOLDS = (0.2, 0.3, 0.5, 0.99)  # those of RepLKNet's and PeLK's tables


@dataclass(frozen=True)
class Protocol:
    """How many images, and their side in pixels; figures compare only within one protocol."""

    images: int
    side: int


PROTOCOLS = {
    "replknet": Protocol(images=50, side=1024),  # also SLaK, PeLK, UniRepLKNet
    "uniconvnet": Protocol(images=1000, side=224),  # UniConvNet, arXiv 2508.09000
}


@dataclass(frozen=True)
class ERF:
    """What `effective_receptive_field` found.

    `contribution` is P above, (H, W) float64; `images` is how many it averages.
    """

    contribution: np.ndarray
    images: int

    @cached_property
    def scores(self) -> np.ndarray:
        """(H, W), 0..1: log10(P + 1) over its maximum, as the papers draw and measure it."""
        scores = np.log10(self.contribution + 1)
        return scores / max(scores.max(), np.finfo(float).tiny)

    @property
    def support(self) -> tuple[int, int]:
        """Height and width, in pixels, of the smallest box with all pixels that contribute."""
        rows, columns = np.nonzero(self.contribution)
        if not len(rows):
            return 0, 0
        return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1

    def side(self, threshold: float, linear: bool = False) -> int:
        """Side in pixels of the smallest centred square with more than `threshold` of the scores.

        Args:
            threshold: 0 to 1.
            linear: share of the contributions P themselves. The papers' logarithm depends on the
                scale of the features; P does not, and weighs the strong centre more.
        """
        if not 0 <= threshold < 1:
            raise InputError(f"a threshold is a share from 0 to below 1, got {threshold}")
        mass = self.contribution if linear else self.scores
        H, W = mass.shape
        # Squares around the centre are the pixels up to a Chebyshev distance: add ring by ring.
        rows, columns = np.arange(H)[:, None] - H // 2, np.arange(W) - W // 2
        ring = np.maximum(np.abs(rows), np.abs(columns))
        within = np.bincount(ring.ravel(), mass.ravel()).cumsum()
        return 2 * int(np.argmax(within > threshold * within[-1])) + 1

    def area_ratio(self, threshold: float, linear: bool = False) -> float:
        """High-contribution area ratio r(threshold), 0 to 1: `side` squared over H * W."""
        H, W = self.contribution.shape
        side = self.side(threshold, linear)
        return min(side, H) * min(side, W) / (H * W)

    def area_ratios(self, thresholds: Iterable[float] = THRESHOLDS) -> dict[float, float]:
        """{t: r(t)}, one row of the papers' tables."""
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
    """Average contribution of the input pixels to the centre of a feature map.

    Images are taken one batch at a time from any iterable, and only their average is kept.

    Args:
        model: any module, used in evaluation mode, on the device it is on, and left as it was.
        images: normalized (C, H, W) images or (N, C, H, W) batches of one size: a tensor, a list,
            a data loader's images. Without a protocol all of them are used as they are.
        protocol: "replknet" (50 images at 1024 x 1024), "uniconvnet" (1000 at 224 x 224) or your
            own. Images of another size are resized (bicubic, both sides, as the authors do).
        features: input -> (N, C, h, w) feature map; default `model.forward_features`, which all
            timm models have. For a model without it, `features=model`.
        layer: instead of `features`, the name of a module whose output is the feature map, as in
            `model.named_modules()`: "stages.0", "stages.2.blocks.4".
        batch: images at once. More may be faster; the result is the same.
        recompute: keep only the inputs of stages and blocks (of whatever stands in an
            `nn.Sequential`) and compute one block again at a time on the way back: a fraction of
            the memory for twice the time. The result is the same.
        progress: show a progress bar.

    Raises:
        InputError: an unknown protocol or layer, too few images, no gradient to follow, images
            that are not (C, H, W), or features that are not (N, C, h, w), as a transformer's.
    """
    if isinstance(protocol, str):
        if protocol not in PROTOCOLS:
            raise unknown("ERF protocol", protocol, PROTOCOLS)
        protocol = PROTOCOLS[protocol]
    if batch < 1:
        raise InputError(f"a batch holds 1 image or more, got {batch=}")
    if layer is not None:
        features = output_of(model, layer)
    elif features is None:
        try:
            features = model.forward_features
        except AttributeError:
            raise InputError(
                f"{type(model).__name__} has no forward_features; say features=, a callable "
                f"from images to an (N, C, h, w) feature map, or layer="
            ) from None
    parameter = next(model.parameters(), torch.empty(0))
    wanted = None if protocol is None else protocol.images
    singles = itertools.islice(_singles(images), wanted)
    if progress:
        from rich import get_console
        from rich.progress import track

        # A log file would only get an empty line of it.
        silent = not get_console().is_terminal
        singles = track(singles, "receptive field", wanted, transient=True, disable=silent)

    total, count, size, seen = None, 0, None, 0
    blocks = recomputed(model) if recompute else contextlib.nullcontext()
    with studied(model), blocks:
        for group in _groups(singles, batch):
            seen += len(group)
            x_NCHW = torch.stack(group).to(parameter.device, parameter.dtype)
            if protocol is not None and x_NCHW.shape[2:] != (protocol.side, protocol.side):
                x_NCHW = F.interpolate(
                    x_NCHW, (protocol.side, protocol.side), mode="bicubic", antialias=True
                )
            if size not in (None, x_NCHW.shape[2:]):
                raise InputError(
                    f"images must be of one size, got {tuple(size)} and {tuple(x_NCHW.shape[2:])}; "
                    f"a protocol resizes them"
                )
            size = x_NCHW.shape[2:]
            for gradient in _contributions(model, features, x_NCHW):
                if gradient.isfinite().all():  # an image with a NaN says nothing; skipped as in
                    total = gradient if total is None else total + gradient  # the authors' code
                    count += 1
    if wanted is not None and seen < wanted:
        raise InputError(f"this protocol takes {wanted} images, got {seen}")
    if total is None:
        raise InputError("no image to follow the gradient of: the images are empty or all NaN")
    return ERF((total / count).cpu().numpy(), count)


def draw_erf(
    erfs: Mapping[str, ERF],
    path: str | os.PathLike,
    thresholds: Iterable[float] = THRESHOLDS,
    gamma: float = 0.5,
) -> Path:
    """The score maps of several networks side by side, on one scale.

    The squares are the smallest around the centre that hold 20%, 30%, ... of the scores; below
    each map stands which share of the image they cover.

    Args:
        gamma: colours follow scores ** gamma; the papers' follow the scores (1), where fields
            with a bright centre look black around it.
    """
    from matplotlib.colors import PowerNorm
    from matplotlib.patches import Rectangle

    from seewide.analysis import pictures

    if not erfs:
        raise InputError("no receptive field to draw")
    thresholds = tuple(thresholds)
    rows = -(-len(erfs) // 4)
    columns = -(-len(erfs) // rows)
    with pictures.style():
        figure, axes = pictures.canvas(rows, columns, 3.6 * columns + 0.6, 3.9 * rows)
        for axis in axes[len(erfs) :]:
            axis.set_axis_off()
        for axis, (title, erf) in zip(axes, erfs.items(), strict=False):
            H, W = erf.scores.shape
            image = axis.imshow(erf.scores, cmap="magma", norm=PowerNorm(gamma, 0, 1))
            for colour, threshold in zip(CONTOURS, thresholds, strict=False):
                side = erf.side(threshold)
                corner = (W // 2 - side / 2, H // 2 - side / 2)
                box = Rectangle(corner, side, side, fill=False, edgecolor=colour, linewidth=1.2,
                                label=f"{threshold:.0%}")  # fmt: skip
                axis.add_patch(box)
            axis.set_xlim(-0.5, W - 0.5)
            axis.set_ylim(H - 0.5, -0.5)
            axis.set_xticks([0, W // 2, W - 1], ["0", f"{W // 2}", f"{W} px"], fontsize=7)
            axis.set_yticks([])
            axis.set_title(title)
            axis.spines[:].set_visible(False)
            ratios = erf.area_ratios(thresholds).items()
            axis.set_xlabel("   ".join(f"{t:.0%}: {r:.1%}" for t, r in ratios), fontsize=8)
        bar = figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02, shrink=0.8)
        bar.outline.set_visible(False)
        bar.set_label("log10(contribution + 1), of its maximum", fontsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, title="squares that hold", ncols=len(labels), fontsize=8,
                      title_fontsize=8, loc="outside lower center")  # fmt: skip
        return pictures.save(figure, path)


def _singles(images: Iterable[Tensor]) -> Iterator[Tensor]:
    """(C, H, W) images, whether they come alone or in batches."""
    for tensor in images:
        if tensor.ndim not in (3, 4):
            raise InputError(
                f"images are (C, H, W) or (N, C, H, W), got shape {tuple(tensor.shape)}"
            )
        yield from tensor if tensor.ndim == 4 else tensor[None]


def _groups(items: Iterable[Tensor], size: int) -> Iterator[list[Tensor]]:
    """Lists of `size` items of one shape; the last of a shape may be shorter."""
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
    """(N, H, W) float64: relu'd gradient of the relu'd central features, summed over channels."""
    x_NCHW = x_NCHW.detach().requires_grad_()
    with torch.enable_grad():
        # A view, since checkpoints cannot follow autograd.grad to a leaf that is their own input.
        with taking_images(model, x_NCHW):
            y_NChw = features(x_NCHW.view_as(x_NCHW))
        if y_NChw.ndim != 4:
            raise InputError(
                f"features must be (N, C, h, w), got shape {tuple(y_NChw.shape)}; for tokens say "
                f"features=, a callable that puts them back into their grid"
            )
        h, w = y_NChw.shape[2:]
        center = y_NChw[:, :, h // 2, w // 2].relu().sum()
        if not center.requires_grad:
            raise InputError("the features do not depend on the image through a gradient")
        (gradient_NCHW,) = torch.autograd.grad(center, x_NCHW)
    return gradient_NCHW.relu().sum(1, dtype=torch.float64)
