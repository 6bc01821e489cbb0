"""Boxes: their coding relative to anchors, clipping, and non-maximum suppression.

Boxes are (x1, y1, x2, y2) in continuous pixel coordinates: width = x2 - x1, an image of H x W
pixels covers [0, W] x [0, H]. Written from facts about mmdetection 2.28 (`DeltaXYWHBBoxCoder`,
`multiclass_nms`); `torchvision.ops` does the suppression. Legend: B boxes, C classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log

import torch
from torch import Tensor
from torchvision import ops

Size = tuple[int, int]  # height, width

MAX_LOG_RATIO = abs(log(16 / 1000))  # largest change of a side in one step, both ways


@dataclass(frozen=True)
class BoxCoder:
    """Boxes as offsets (dx, dy, dw, dh) from reference boxes. Faster R-CNN (1506.01497), eq. 2.

    dx = (x - x_r) / w_r and dw = log(w / w_r), with centres x and widths w; each divided by its
    entry of `stds`.
    """

    stds: tuple[float, float, float, float] = (1.0, 1.0, 1.0, 1.0)

    def encode(self, reference: Tensor, boxes: Tensor) -> Tensor:
        """Offsets of `boxes` (B, 4) from `reference` (B, 4): (B, 4)."""
        centre_r, size_r = _centre_size(reference)
        centre, size = _centre_size(boxes)
        offsets = torch.cat([(centre - centre_r) / size_r, (size / size_r).log()], -1)
        return offsets / offsets.new_tensor(self.stds)

    def decode(self, reference: Tensor, offsets: Tensor, size: Size | None = None) -> Tensor:
        """Boxes (..., 4) from `offsets` (..., 4) and `reference`, whose shapes broadcast.

        dw and dh are limited to +-log(1000 / 16). With `size` (height, width) the boxes are
        clipped to the image.
        """
        offsets = offsets * offsets.new_tensor(self.stds)
        centre_r, size_r = _centre_size(reference)
        centre = centre_r + size_r * offsets[..., :2]
        half = size_r * offsets[..., 2:].clamp(-MAX_LOG_RATIO, MAX_LOG_RATIO).exp() * 0.5
        boxes = torch.cat([centre - half, centre + half], -1)
        return boxes if size is None else clip_boxes(boxes, size)


def _centre_size(boxes: Tensor) -> tuple[Tensor, Tensor]:
    low, high = boxes[..., :2], boxes[..., 2:]
    return (low + high) * 0.5, high - low


def clip_boxes(boxes: Tensor, size: Size) -> Tensor:
    """`boxes` (..., 4) moved into an image of `size` (height, width)."""
    height, width = size
    x, y = boxes[..., 0::2].clamp(0, width), boxes[..., 1::2].clamp(0, height)
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], -1)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of `a` (A, 4) with `b` (B, 4): (A, B); 0 of two boxes without area.

    That is as in mmdetection, which keeps the union above 1e-6.
    """
    return ops.box_iou(a, b).nan_to_num(0.0)


def batched_nms(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes that stay, best score first; boxes suppress others of their group only.

    Args:
        boxes: (B, 4).
        scores: (B,).
        groups: (B,) integers, such as classes or pyramid levels.
        threshold: a box goes if its IoU with a better one of its group is above.
    """
    if not torch.compiler.is_exporting():
        return ops.batched_nms(boxes, scores, groups, threshold)
    # torchvision chooses between two ways by the number of boxes, which an exported graph cannot.
    # Its other way: groups are moved so far apart that they cannot overlap.
    shift = groups.to(boxes) * (boxes.max() + 1)
    return ops.nms(boxes + shift[:, None], scores, threshold)


def select_detections(
    boxes: Tensor,
    scores: Tensor,
    labels: Tensor,
    iou_threshold: float,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """The best `count` of (boxes, scores, labels) after suppression within each label."""
    keep = batched_nms(boxes, scores, labels, iou_threshold)[:count]
    return boxes[keep], scores[keep], labels[keep]


def multiclass_nms(
    boxes: Tensor,
    scores: Tensor,
    score_threshold: float,
    iou_threshold: float,
    count: int,
) -> tuple[Tensor, Tensor, Tensor]:
    """Detections of candidates that have a score, and a box, for each class.

    Args:
        boxes: (B, C, 4).
        scores: (B, C), without background.
        score_threshold: only (box, class) pairs above it are candidates.
        iou_threshold: of the suppression, which is within each class.
        count: most detections returned.

    Returns: boxes (D, 4), scores (D,), labels (D,), best score first.
    """
    candidate, label = (scores > score_threshold).nonzero(as_tuple=True)
    pairs = boxes[candidate, label], scores[candidate, label], label
    return select_detections(*pairs, iou_threshold, count)
