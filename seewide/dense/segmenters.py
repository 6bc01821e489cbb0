"""Semantic segmentation networks, and how they are evaluated.

A segmenter follows torchvision's convention: a batch of normalized images (N, 3, H, W) in,
{"out": logits (N, C, H, W)} out, and in training mode "aux", the auxiliary head's logits.
Legend: N images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError
from .backbone import FeaturePyramid
from .boxes import Size
from .losses import LossTerm, pixel_cross_entropy
from .segmentation_heads import SegmentationHead, resize

AUXILIARY_WEIGHT = 0.4


class Segmenter(FeaturePyramid):
    """Backbone, optional neck, decode head, optional auxiliary head.

    Args:
        backbone: see `FeaturePyramid`, which documents `pyramid` too.
        decode_head: reads the neck's maps, or without neck the backbone's.
        auxiliary_head: reads the backbone's maps.
        neck: from the backbone's maps to the pyramid.
    """

    def __init__(
        self,
        backbone: nn.Module,
        decode_head: SegmentationHead,
        auxiliary_head: SegmentationHead | None = None,
        neck: nn.Module | None = None,
        **pyramid,
    ):
        super().__init__(backbone, **pyramid)
        self.neck = neck
        self.decode_head = decode_head
        self.auxiliary_head = auxiliary_head

    @property
    def num_classes(self) -> int:
        """C"""
        return self.decode_head.num_classes

    def logits(self, x_NCHW: Tensor, auxiliary: bool) -> dict[str, Tensor]:
        """Of the heads at their own resolution: `out` and, if wanted and there, `aux`."""
        maps = self.maps(x_NCHW)
        out = {"out": self.decode_head(maps if self.neck is None else self.neck(maps))}
        if auxiliary and self.auxiliary_head is not None:
            out["aux"] = self.auxiliary_head(maps)
        return out

    def forward(self, x_NCHW: Tensor) -> dict[str, Tensor]:
        size = x_NCHW.shape[-2:]
        return {name: resize(x, size) for name, x in self.logits(x_NCHW, self.training).items()}

    def loss_terms(
        self, x_NCHW: Tensor, labels_NHW: Tensor, ignore_index: int = 255
    ) -> dict[str, LossTerm]:
        """Cross-entropy of each head as a sum over pixels and their number, ignored ones included.

        The auxiliary head's counts 0.4.
        """
        terms = {}
        for name, x in self.logits(x_NCHW, auxiliary=True).items():
            total, weight = pixel_cross_entropy(x, labels_NHW, ignore_index)
            factor = AUXILIARY_WEIGHT if name == "aux" else 1.0
            terms[f"loss_{name}"] = LossTerm(factor * total, weight)
        return terms


@torch.no_grad()
def whole_image(model: Segmenter, x_NCHW: Tensor, size: Size, valid: Size | None = None) -> Tensor:
    """Probabilities (N, C, *size) from one pass over the image.

    Args:
        model: in evaluation mode.
        x_NCHW: normalized and padded images.
        size: (height, width) of the original images.
        valid: (height, width) of the images without padding; None: there is none.
    """
    logits = model(x_NCHW)["out"]
    if valid is not None:
        logits = logits[..., : valid[0], : valid[1]]
    return resize(logits, size).softmax(1)


@torch.no_grad()
def sliding_window(model: Segmenter, x_NCHW: Tensor, size: Size, crop: int, stride: int) -> Tensor:
    """Probabilities (N, C, *size) from crops whose logits are averaged where they overlap.

    The last crop of a row or column ends at the border of the image; an image smaller than `crop`
    is one crop.
    """
    height, width = x_NCHW.shape[-2:]
    total = None
    count = x_NCHW.new_zeros((1, 1, height, width))
    for y in _starts(height, crop, stride):
        for x in _starts(width, crop, stride):
            window = (..., slice(y, y + crop), slice(x, x + crop))
            logits = model(x_NCHW[window])["out"]
            if total is None:
                total = logits.new_zeros((*logits.shape[:2], height, width))
            total[window] += logits
            count[window] += 1
    return resize(total / count, size).softmax(1)


def _starts(length: int, crop: int, stride: int) -> list[int]:
    steps = max(0, -(-(length - crop) // stride)) + 1
    return [max(0, min(i * stride, length - crop)) for i in range(steps)]


SCALES = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)


@torch.no_grad()
def average_views(probabilities, views: Sequence[Tensor], flip: bool = True) -> Tensor:
    """Mean of the probabilities of several views of a batch, and of their mirror images.

    Args:
        probabilities: (N, 3, H, W) -> (N, C, *size), such as `whole_image` with its size.
        views: the batch at several scales, normalized.
        flip: also the mirror image of each.
    """
    if not views:
        raise InputError("average_views needs at least one view, got none")
    total = 0
    for x in views:
        total = total + probabilities(x)
        if flip:
            total = total + probabilities(x.flip(-1)).flip(-1)
    return total / (len(views) * (2 if flip else 1))
