"""Region proposal network. Faster R-CNN (1506.01497), section 3.1.

Written from facts about mmdetection 2.28 (`RPNHead`). Legend: N images, A anchors of all levels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .anchors import GridAnchors
from .boxes import BoxCoder, Size, batched_nms
from .images import ImageBatch, Target
from .losses import LossTerm, l1_loss
from .matching import MatchRule, Sampler, assign

BoxLoss = Callable[[Tensor, Tensor], Tensor]


def flatten_levels(levels: Sequence[Tensor], width: int) -> list[Tensor]:
    """(N, anchors x width, H, W) of each level -> (N, H x W x anchors, width)."""
    return [x.permute(0, 2, 3, 1).reshape(x.shape[0], -1, width) for x in levels]


def inside(anchors: Tensor, size: Size, border: float) -> Tensor:
    """Which of `anchors` (A, 4) leave an image of `size` by less than `border` pixels."""
    height, width = size
    low = (anchors[:, :2] >= -border).all(1)
    return low & (anchors[:, 2] < width + border) & (anchors[:, 3] < height + border)


class RPNHead(nn.Module):
    """Objectness and box offsets of the anchors of each cell; proposals from them.

    Args:
        channels: of the pyramid and of the hidden layer.
        strides: of the pyramid.
        box_loss: of the offsets, a sum.
        border: anchors that leave the image by this many pixels or more take no part in training;
            None: all take part.

    Shape: list of (N, channels, H_i, W_i) -> list of (N, 3, H_i, W_i), list of (N, 12, H_i, W_i)
    """

    MATCH = MatchRule(positive=0.7, negative=0.3, low_quality=0.3)
    SAMPLER = Sampler(256, 0.5)
    IOU_THRESHOLD = 0.7

    def __init__(
        self,
        channels: int = 256,
        strides: tuple[int, ...] = (4, 8, 16, 32, 64),
        box_loss: BoxLoss = l1_loss,
        border: float | None = None,
    ):
        super().__init__()
        self.anchors = GridAnchors(strides)()
        self.coder = BoxCoder()
        self.box_loss = box_loss
        self.border = border
        count = self.anchors.per_cell[0]
        self.rpn_conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.rpn_cls = nn.Conv2d(channels, count, 1)
        self.rpn_reg = nn.Conv2d(channels, 4 * count, 1)
        for conv in (self.rpn_conv, self.rpn_cls, self.rpn_reg):
            nn.init.normal_(conv.weight, std=0.01)
            nn.init.zeros_(conv.bias)

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        hidden = [self.rpn_conv(x).relu() for x in maps]
        return [self.rpn_cls(x) for x in hidden], [self.rpn_reg(x) for x in hidden]

    def loss_terms(
        self,
        scores: Sequence[Tensor],
        offsets: Sequence[Tensor],
        batch: ImageBatch,
        targets: Sequence[Target],
    ) -> dict[str, LossTerm]:
        """Binary cross-entropy and box loss of the sampled anchors, over their number."""
        sizes = [tuple(x.shape[-2:]) for x in scores]
        anchors = torch.cat(self.anchors(sizes, scores[0]))
        scores_NA = torch.cat(flatten_levels(scores, 1), 1)[..., 0]
        offsets_NA4 = torch.cat(flatten_levels(offsets, 4), 1)
        classification = box = scores_NA.sum() * 0
        count = 0
        for i, target in enumerate(targets):
            with torch.no_grad():
                usable = self.anchors.valid(sizes, batch.padded[i], anchors.device)
                if self.border is not None:
                    usable = usable & inside(anchors, batch.sizes[i], self.border)
                usable = usable.nonzero()[:, 0]
                matched = assign(anchors[usable], target["boxes"], self.MATCH)
                positive, negative = self.SAMPLER(matched)
                objects = target["boxes"][matched[positive]]
                positive, negative = usable[positive], usable[negative]
                wanted = self.coder.encode(anchors[positive], objects)
                truth = torch.cat([wanted.new_ones(len(positive)), wanted.new_zeros(len(negative))])
            sampled = scores_NA[i, torch.cat([positive, negative])]
            classification = classification + F.binary_cross_entropy_with_logits(
                sampled, truth.to(sampled), reduction="sum"
            )
            box = box + self.box_loss(offsets_NA4[i, positive], wanted.to(offsets_NA4))
            count += len(sampled)
        return {
            "loss_rpn_cls": LossTerm(classification, float(count)),
            "loss_rpn_bbox": LossTerm(box, float(count)),
        }

    @torch.no_grad()
    def proposals(
        self,
        scores: Sequence[Tensor],
        offsets: Sequence[Tensor],
        sizes: Sequence[Size],
        per_level: int,
        count: int,
    ) -> list[tuple[Tensor, Tensor]]:
        """Boxes (P, 4) and scores (P,) of each image, best first.

        Args:
            scores: as `forward` returns them.
            offsets: as `forward` returns them.
            sizes: of the images without padding, which boxes are clipped to.
            per_level: anchors of the highest scores that each level contributes.
            count: boxes returned at most, after suppression within each level.
        """
        anchors = self.anchors([tuple(x.shape[-2:]) for x in scores], scores[0])
        levels = list(
            zip(flatten_levels(scores, 1), flatten_levels(offsets, 4), anchors, strict=True)
        )
        found = []
        for i, size in enumerate(sizes):
            boxes, ranks, level_of = [], [], []
            for level, (level_scores, level_offsets, level_anchors) in enumerate(levels):
                best, index = _best(level_scores[i, :, 0].sigmoid(), per_level)
                decoded = self.coder.decode(level_anchors[index], level_offsets[i, index], size)
                boxes.append(decoded)
                ranks.append(best)
                level_of.append(torch.full_like(index, level))
            boxes, ranks, level_of = torch.cat(boxes), torch.cat(ranks), torch.cat(level_of)
            solid = (boxes[:, 2:] > boxes[:, :2]).all(1)
            boxes, ranks, level_of = boxes[solid], ranks[solid], level_of[solid]
            keep = batched_nms(boxes, ranks, level_of, self.IOU_THRESHOLD)[:count]
            found.append((boxes[keep], ranks[keep]))
        return found


def _best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest of `scores` (A,) and their indices, highest first."""
    return scores.topk(torch.sym_min(count, scores.shape[0]))
