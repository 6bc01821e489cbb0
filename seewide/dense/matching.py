"""Which anchor or proposal learns which object, and which of them take part in the loss.

Written from facts about mmdetection 2.28 (`MaxIoUAssigner`, `RandomSampler`).
Legend: A anchors or proposals, G ground-truth boxes.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .boxes import pairwise_iou

NEGATIVE, IGNORED = -1, -2
PAIRS_AT_ONCE = 50_000_000  # IoUs computed at a time; 200 MB in float32


@dataclass(frozen=True)
class MatchRule:
    """Thresholds on the intersection over union (IoU).

    An anchor is negative if its best IoU is below `negative`, and belongs to its best object if
    that IoU is at least `positive`; between the two it is ignored. With `low_quality` each object
    also takes the anchors of its highest IoU, if that is at least `low_quality`: all that tie, or
    only the first one with `first_tie_only`; a later object takes from an earlier one.
    """

    positive: float
    negative: float
    low_quality: float | None = None
    first_tie_only: bool = False


def assign(anchors: Tensor, boxes: Tensor, rule: MatchRule) -> Tensor:
    """Index into `boxes` (G, 4) for each of `anchors` (A, 4), or NEGATIVE, or IGNORED: (A,)."""
    count = len(boxes)
    if count == 0:
        return anchors.new_full((len(anchors),), NEGATIVE, dtype=torch.long)
    chunks = anchors.split(max(1, PAIRS_AT_ONCE // count))
    tables = [pairwise_iou(boxes, chunks[0])] if len(chunks) == 1 else []  # else computed twice
    matched, highest, first = [], boxes.new_full((count,), -1.0), boxes.new_zeros((count,))
    first = first.long()
    start = 0
    for i, chunk in enumerate(chunks):
        iou_GA = tables[i] if tables else pairwise_iou(boxes, chunk)
        best, index = iou_GA.max(0)
        index = index.masked_fill(best < rule.positive, IGNORED)
        matched.append(index.masked_fill(best < rule.negative, NEGATIVE))
        here, where = iou_GA.max(1)
        first = torch.where(here > highest, where + start, first)
        highest = torch.maximum(highest, here)
        start += len(chunk)
    result = torch.cat(matched)
    if rule.low_quality is None:
        return result
    enough = highest >= rule.low_quality
    number = torch.arange(count, device=boxes.device)
    if rule.first_tie_only:
        taken = torch.full_like(result, -1)
        taken.scatter_reduce_(0, first[enough], number[enough], "amax")
    else:
        parts = []
        for i, chunk in enumerate(chunks):
            iou_GA = tables[i] if tables else pairwise_iou(boxes, chunk)
            ties = (iou_GA == highest[:, None]) & enough[:, None]
            parts.append(torch.where(ties, number[:, None], -1).amax(0))
        taken = torch.cat(parts)
    return torch.where(taken >= 0, taken, result)


def choose(candidates: Tensor, count: int) -> Tensor:
    """`count` of `candidates` at random, or all if there are fewer; in ascending order."""
    if len(candidates) <= count:
        return candidates
    order = torch.randperm(len(candidates), device=candidates.device)[:count]
    return candidates[order].sort().values


@dataclass(frozen=True)
class Sampler:
    """Takes at most `count` anchors, of which at most the share `positive` belongs to objects."""

    count: int
    positive: float

    def __call__(self, matched: Tensor) -> tuple[Tensor, Tensor]:
        """Indices of the positive and of the negative anchors taken, each ascending.

        Args:
            matched: (A,) as `assign` returns it.
        """
        positive = choose((matched >= 0).nonzero()[:, 0], int(self.count * self.positive))
        negative = choose((matched == NEGATIVE).nonzero()[:, 0], self.count - len(positive))
        return positive, negative
