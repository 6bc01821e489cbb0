"""What heads that classify anchors directly (RetinaNet, SSD) share: detections from their outputs.

Written from facts about mmdetection 2.28. Legend: N images, A anchors of a level, C classes.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .anchors import AnchorGenerator
from .boxes import BoxCoder, Size, select_detections
from .images import ImageBatch, Target
from .losses import LossTerm
from .matching import IGNORED, MatchRule, assign
from .rpn import flatten_levels

Levels = tuple[list[Tensor], list[Tensor]]  # class logits and box offsets of each level


@dataclass(frozen=True)
class Selection:
    """How detections are chosen: candidates above `score`, at most `per_level` (anchor, class)
    pairs of each level, suppression at `iou` within each class, the best `count`."""

    score: float
    per_level: int
    iou: float
    count: int


class AnchorHead(nn.Module, ABC):
    """Base: `forward` returns class logits (N, anchors x K, H, W) and box offsets per level.

    Args:
        num_classes: C.
        outputs: K, logits of an anchor: C, or C + 1 with the background last.
        anchors: generator of the pyramid's anchors.
        coder: of the boxes.
        match: which anchor learns which object.
        selection: of the detections.
    """

    def __init__(
        self,
        num_classes: int,
        outputs: int,
        anchors: AnchorGenerator,
        coder: BoxCoder,
        match: MatchRule,
        selection: Selection,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.outputs = outputs
        self.anchors = anchors
        self.coder = coder
        self.match = match
        self.selection = selection

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """Probabilities (..., C) of the classes from logits (..., K)."""

    @abstractmethod
    def loss_terms(
        self, outputs: Levels, batch: ImageBatch, targets: Sequence[Target]
    ) -> dict[str, LossTerm]:
        """`loss_cls` and `loss_bbox`."""

    def flat(self, outputs: Levels) -> tuple[Tensor, Tensor, Tensor, list[Size]]:
        """Logits (N, A, K), offsets (N, A, 4), anchors (A, 4) of all levels, and map sizes."""
        logits, offsets = outputs
        sizes = [tuple(x.shape[-2:]) for x in logits]
        return (
            torch.cat(flatten_levels(logits, self.outputs), 1),
            torch.cat(flatten_levels(offsets, 4), 1),
            torch.cat(self.anchors(sizes, logits[0])),
            sizes,
        )

    @torch.no_grad()
    def matched(
        self, anchors: Tensor, sizes: list[Size], batch: ImageBatch, index: int, target: Target
    ) -> Tensor:
        """Index of the object of each of `anchors` (A,), NEGATIVE or IGNORED; cells that are
        beyond the padding of image `index` are ignored."""
        usable = self.anchors.valid(sizes, batch.padded[index], anchors.device)
        matched = torch.full_like(usable, IGNORED, dtype=torch.long)
        matched[usable] = assign(anchors[usable], target["boxes"].to(anchors), self.match)
        return matched

    @torch.no_grad()
    def detect(self, outputs: Levels, batch: ImageBatch) -> list[dict[str, Tensor]]:
        """Boxes in pixels of the original images, scores and labels, best score first."""
        logits, offsets = outputs
        anchors = self.anchors([tuple(x.shape[-2:]) for x in logits], logits[0])
        flat = list(
            zip(
                flatten_levels(logits, self.outputs),
                flatten_levels(offsets, 4),
                anchors,
                strict=True,
            )
        )
        results = []
        for i, size in enumerate(batch.sizes):
            candidates = [
                self._candidates(level_logits[i], level_offsets[i], level_anchors, size)
                for level_logits, level_offsets, level_anchors in flat
            ]
            boxes, scores, labels = map(torch.cat, zip(*candidates, strict=True))
            boxes = boxes / batch.factors(i)
            chosen = select_detections(
                boxes, scores, labels, self.selection.iou, self.selection.count
            )
            results.append(dict(zip(("boxes", "scores", "labels"), chosen, strict=True)))
        return results

    def _candidates(self, logits: Tensor, offsets: Tensor, anchors: Tensor, size: Size):
        """The best (anchor, class) pairs of a level of an image."""
        scores = self.scores(logits)
        if torch.compiler.is_exporting():  # sizes that depend on values come last
            flat = scores.flatten()
            best, order = flat.topk(torch.sym_min(self.selection.per_level, flat.shape[0]))
            above = (best > self.selection.score).nonzero()[:, 0]
            best, order = best[above], order[above]
            anchor, label = order // self.num_classes, order % self.num_classes
        else:
            anchor, label = (scores > self.selection.score).nonzero(as_tuple=True)
            found = scores[anchor, label]
            best, order = found.topk(min(self.selection.per_level, len(found)))
            anchor, label = anchor[order], label[order]
        return self.coder.decode(anchors[anchor], offsets[anchor], size), best, label
