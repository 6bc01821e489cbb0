"""Losses as sums with the weights they are divided by.

A training loop that accumulates micro-batches, or runs on several devices, adds the sums and the
weights and divides once (`LossTerm.total`, `LossTerm.weight`); the mean of one batch, which
torchvision's calling convention returns, is `LossTerm.mean()`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = torch.finfo(torch.float32).eps


class LossTerm(NamedTuple):
    """A sum over anchors, boxes or pixels, and what it is divided by (scalars)."""

    total: Tensor
    weight: Tensor | float

    def mean(self) -> Tensor:
        """total / (weight + eps), eps that of float32."""
        return self.total / (self.weight + EPS)


def means(terms: dict[str, LossTerm]) -> dict[str, Tensor]:
    """The mean of each term."""
    return {name: term.mean() for name, term in terms.items()}


def sigmoid_focal_loss(
    logits: Tensor, targets: Tensor, alpha: float = 0.25, gamma: float = 2.0
) -> Tensor:
    """Sum of the focal loss (1708.02002, eq. 5) of `logits` (B, C), 0-based `targets` (B,).

    A target of C is the background, whose row of the one-hot table is zero.
    """
    classes = logits.shape[1]
    one_hot = F.one_hot(targets, classes + 1)[:, :classes].to(logits)
    p = logits.sigmoid()
    miss = (1 - p) * one_hot + p * (1 - one_hot)
    balance = alpha * one_hot + (1 - alpha) * (1 - one_hot)
    loss = F.binary_cross_entropy_with_logits(logits, one_hot, reduction="none")
    return (loss * balance * miss**gamma).sum()


def l1_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """Sum of absolute differences."""
    return (prediction - target).abs().sum()


def smooth_l1_loss(prediction: Tensor, target: Tensor, beta: float) -> Tensor:
    """Sum of d^2 / (2 beta) where d = |prediction - target| < beta, else d - beta / 2."""
    return F.smooth_l1_loss(prediction, target, beta=beta, reduction="sum")


def giou_loss(prediction: Tensor, target: Tensor, eps: float = 1e-6) -> Tensor:
    """Sum of 1 - GIoU (1902.09630, algorithm 1) of pairs of boxes (B, 4).

    Union and hull are at least `eps`, where torchvision adds its 1e-7 to them.
    """
    low = torch.maximum(prediction[:, :2], target[:, :2])
    high = torch.minimum(prediction[:, 2:], target[:, 2:])
    common = (high - low).clamp(min=0).prod(1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(1) for boxes in (prediction, target)]
    union = (areas[0] + areas[1] - common).clamp(min=eps)
    hull_low = torch.minimum(prediction[:, :2], target[:, :2])
    hull_high = torch.maximum(prediction[:, 2:], target[:, 2:])
    hull = (hull_high - hull_low).clamp(min=0).prod(1).clamp(min=eps)
    return (1 - common / union + (hull - union) / hull).sum()


def mask_loss(logits: Tensor, targets: Tensor, labels: Tensor) -> LossTerm:
    """Binary cross-entropy of each object's mask in the map of its class.

    Args:
        logits: (B, C, h, w).
        targets: (B, h, w) of 0 and 1.
        labels: (B,) 0-based classes.

    Returns: the sum over pixels, and their number.
    """
    own = logits[torch.arange(len(labels), device=labels.device), labels]
    total = F.binary_cross_entropy_with_logits(own, targets.to(own), reduction="sum")
    return LossTerm(total, float(targets.numel()))


def pixel_cross_entropy(logits: Tensor, labels: Tensor, ignore_index: int = 255) -> LossTerm:
    """Cross-entropy per pixel, `logits` (N, C, H, W) resized to `labels` (N, H', W').

    As in mmsegmentation ignored pixels add no loss but are counted in the weight, so that the mean
    is smaller than torch's by valid pixels / all pixels.
    """
    if logits.shape[-2:] != labels.shape[-2:]:
        logits = F.interpolate(logits, labels.shape[-2:], mode="bilinear", align_corners=False)
    total = F.cross_entropy(logits, labels, ignore_index=ignore_index, reduction="sum")
    return LossTerm(total, float(labels.numel()))
