"""Second stages: from proposals to classes, boxes and masks.

Mask R-CNN (1703.06870) and Cascade R-CNN (1906.09756). Written from facts about mmdetection 2.28
(`StandardRoIHead`, `CascadeRoIHead`). Legend: R sampled regions of all images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import BoxCoder, multiclass_nms
from .images import ImageBatch, Target
from .losses import LossTerm, giou_loss, l1_loss, mask_loss
from .masks import mask_targets, paste_binary
from .matching import NEGATIVE, MatchRule, Sampler, assign
from .roi import BoxHead, MaskHead, RegionPool
from .single_stage import Selection


@dataclass(frozen=True)
class Stage:
    """One stage's settings.

    Args:
        match: which proposal learns which object.
        coder: of the boxes.
        weight: of the stage's losses.
        giou: learn decoded boxes by GIoU with this weight; 0: learn offsets by L1.
    """

    match: MatchRule
    coder: BoxCoder
    weight: float = 1.0
    giou: float = 0.0


ONE_STAGE = Stage(MatchRule(0.5, 0.5, low_quality=0.5), BoxCoder((0.1, 0.1, 0.2, 0.2)))
THREE_STAGES = (
    Stage(MatchRule(0.5, 0.5), BoxCoder((0.1, 0.1, 0.2, 0.2)), 1.0, giou=10.0),
    Stage(MatchRule(0.6, 0.6), BoxCoder((0.05, 0.05, 0.1, 0.1)), 0.5, giou=10.0),
    Stage(MatchRule(0.7, 0.7), BoxCoder((0.033, 0.033, 0.067, 0.067)), 0.25, giou=10.0),
)
SELECTION = Selection(score=0.05, per_level=0, iou=0.5, count=100)


class Regions(NamedTuple):
    """Sampled regions of an image; those that belong to an object come first."""

    boxes: Tensor  # (R, 4)
    objects: Tensor  # (R,) index of the object, or NEGATIVE
    labels: Tensor  # (R,) class, C for negatives
    is_object: Tensor  # (R,) whether the region is a ground-truth box itself


class RoIHead(nn.Module):
    """Base of the two: sampling, losses of a stage, detections and masks.

    Args:
        num_classes: C.
        strides: of the pyramid's levels that regions are read from.
        sampler: of the proposals of an image.
        selection: of the detections.
    """

    def __init__(
        self,
        num_classes: int,
        strides: Sequence[int] = (4, 8, 16, 32),
        sampler: Sampler = Sampler(512, 0.25),  # noqa: B008 - it is frozen
        selection: Selection = SELECTION,
    ):
        super().__init__()
        self.num_classes = num_classes
        self.sampler = sampler
        self.selection = selection
        self.box_pool = RegionPool(7, strides)
        self.mask_pool = RegionPool(14, strides)

    @torch.no_grad()
    def sample(self, proposals: Tensor, target: Target, match: MatchRule) -> Regions:
        """Regions for training from `proposals` (P, 4) and the ground-truth boxes."""
        boxes, count = target["boxes"].to(proposals), len(target["boxes"])
        matched = torch.cat(
            [torch.arange(count, device=boxes.device), assign(proposals, boxes, match)]
        )
        taken = torch.cat(self.sampler(matched))
        objects = matched[taken]
        labels = torch.full_like(objects, self.num_classes)
        positive = objects >= 0
        labels[positive] = target["labels"][objects[positive]]
        return Regions(torch.cat([boxes, proposals])[taken], objects, labels, taken < count)

    def box_terms(
        self, logits: Tensor, offsets: Tensor, regions: Sequence[Regions], targets, stage: Stage
    ) -> dict[str, LossTerm]:
        """Cross-entropy of all regions, box loss of the positive ones; both over all regions."""
        boxes = torch.cat([r.boxes for r in regions])
        labels = torch.cat([r.labels for r in regions])
        classification = F.cross_entropy(logits, labels, reduction="sum")
        positive = (labels < self.num_classes).nonzero()[:, 0]
        own = offsets.view(len(labels), -1, 4)[positive, labels[positive]]
        wanted = torch.cat(
            [t["boxes"][r.objects[r.objects >= 0]] for r, t in zip(regions, targets, strict=True)]
        ).to(own)
        if stage.giou:
            box = stage.giou * giou_loss(stage.coder.decode(boxes[positive], own), wanted)
        else:
            box = l1_loss(own, stage.coder.encode(boxes[positive], wanted))
        return {
            "loss_cls": LossTerm(stage.weight * classification, float(len(labels))),
            "loss_bbox": LossTerm(stage.weight * box, float(len(labels))),
        }

    def mask_terms(
        self, head: MaskHead, maps, regions: Sequence[Regions], targets, weight: float
    ) -> dict[str, LossTerm]:
        """Binary cross-entropy per pixel of the positive regions' masks."""
        positive = [(r.objects != NEGATIVE).nonzero()[:, 0] for r in regions]
        boxes = [r.boxes[p] for r, p in zip(regions, positive, strict=True)]
        labels = torch.cat([r.labels[p] for r, p in zip(regions, positive, strict=True)])
        if not len(labels):  # no object in the batch: every parameter still takes part
            total = sum(p.sum() for p in head.parameters()) * 0
            return {"loss_mask": LossTerm(total, 0.0)}
        wanted = torch.cat(
            [
                mask_targets(t["masks"], b, r.objects[p])
                for r, t, b, p in zip(regions, targets, boxes, positive, strict=True)
                if len(p)
            ]
        )
        term = mask_loss(head(self.mask_pool(maps, boxes)), wanted, labels)
        return {"loss_mask": LossTerm(weight * term.total, term.weight)}

    def select(self, boxes: Tensor, logits: Tensor, factors: Tensor) -> dict[str, Tensor]:
        """Detections of an image from boxes (R, C, 4) in it and class logits (R, C + 1)."""
        scores = logits.softmax(-1)[:, :-1]
        chosen = multiclass_nms(
            boxes / factors, scores, self.selection.score, self.selection.iou, self.selection.count
        )
        return dict(zip(("boxes", "scores", "labels"), chosen, strict=True))

    def add_masks(
        self, heads: Sequence[MaskHead], maps, batch: ImageBatch, detections: list[dict]
    ) -> None:
        """Put "masks" (D, 1, H, W), bool, of the original size into each of `detections`."""
        boxes = [found["boxes"] * batch.factors(i) for i, found in enumerate(detections)]
        features = self.mask_pool(maps, boxes)
        labels = torch.cat([found["labels"] for found in detections])
        rows = torch.arange(labels.shape[0], device=labels.device)
        probabilities = sum(head(features)[rows, labels].sigmoid() for head in heads) / len(heads)
        parts = _split(probabilities, [found["labels"] for found in detections])
        for found, part, size in zip(detections, parts, batch.original, strict=True):
            found["masks"] = paste_binary(part, found["boxes"], size)[:, None]


class StandardRoIHead(RoIHead):
    """One box head, and a mask head if `masks`. Arguments of the base: see `RoIHead`."""

    def __init__(
        self,
        num_classes: int,
        channels: int = 256,
        masks: bool = True,
        stage: Stage = ONE_STAGE,
        **base,
    ):
        super().__init__(num_classes, **base)
        self.stage = stage
        self.bbox_head = BoxHead(num_classes, channels)
        self.mask_head = MaskHead(num_classes, channels) if masks else None

    def loss_terms(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        batch: ImageBatch,
        targets: Sequence[Target],
    ) -> dict[str, LossTerm]:
        """`loss_cls`, `loss_bbox` and `loss_mask`."""
        regions = [
            self.sample(boxes, target, self.stage.match)
            for boxes, target in zip(proposals, targets, strict=True)
        ]
        outputs = self.bbox_head(self.box_pool(maps, [r.boxes for r in regions]))
        terms = self.box_terms(*outputs, regions, targets, self.stage)
        if self.mask_head is not None:
            terms |= self.mask_terms(self.mask_head, maps, regions, targets, self.stage.weight)
        return terms

    @torch.no_grad()
    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], batch: ImageBatch
    ) -> list[dict[str, Tensor]]:
        """Boxes, scores, labels (and masks) in pixels of the original images."""
        logits, offsets = self.bbox_head(self.box_pool(maps, proposals))
        parts = zip(proposals, _split(logits, proposals), _split(offsets, proposals), strict=True)
        detections = []
        for i, (boxes, own_logits, own_offsets) in enumerate(parts):
            decoded = self.stage.coder.decode(
                boxes[:, None], own_offsets.unflatten(1, (-1, 4)), batch.sizes[i]
            )
            detections.append(self.select(decoded, own_logits, batch.factors(i)))
        if self.mask_head is not None:
            self.add_masks([self.mask_head], maps, batch, detections)
        return detections


class CascadeRoIHead(RoIHead):
    """Three stages, each of which reads the boxes that the one before has refined.

    Arguments of the base: see `RoIHead`.
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 256,
        masks: bool = True,
        stages: Sequence[Stage] = THREE_STAGES,
        **base,
    ):
        super().__init__(num_classes, **base)
        self.stages = tuple(stages)
        self.bbox_head = nn.ModuleList(
            BoxHead(num_classes, channels, num_convs=4, num_fcs=1) for _ in stages
        )
        self.mask_head = (
            nn.ModuleList(MaskHead(num_classes, channels) for _ in stages) if masks else None
        )

    def loss_terms(
        self,
        maps: Sequence[Tensor],
        proposals: Sequence[Tensor],
        batch: ImageBatch,
        targets: Sequence[Target],
    ) -> dict[str, LossTerm]:
        """`s0.loss_cls` and so on for each stage."""
        terms = {}
        for i, stage in enumerate(self.stages):
            regions = [
                self.sample(boxes, target, stage.match)
                for boxes, target in zip(proposals, targets, strict=True)
            ]
            logits, offsets = self.bbox_head[i](self.box_pool(maps, [r.boxes for r in regions]))
            own = self.box_terms(logits, offsets, regions, targets, stage)
            if self.mask_head is not None:
                own |= self.mask_terms(self.mask_head[i], maps, regions, targets, stage.weight)
            terms |= {f"s{i}.{name}": term for name, term in own.items()}
            if i + 1 < len(self.stages):
                proposals = self._next_proposals(logits, offsets, regions, stage, batch.sizes)
        return terms

    @torch.no_grad()
    def _next_proposals(self, logits, offsets, regions: Sequence[Regions], stage: Stage, sizes):
        """The regions moved by their offsets, without those that are ground-truth boxes."""
        counts = [len(r.boxes) for r in regions]
        moved = []
        for r, own_logits, own_offsets, size in zip(
            regions, logits.split(counts), offsets.split(counts), sizes, strict=True
        ):
            best = own_logits[:, :-1].argmax(1)
            labels = torch.where(r.labels == self.num_classes, best, r.labels)
            new = ~r.is_object
            moved.append(_refine(r.boxes[new], own_offsets[new], labels[new], stage.coder, size))
        return moved

    def refine(self, stage: int, boxes: Tensor, logits: Tensor, offsets: Tensor, size) -> Tensor:
        """`boxes` (R, 4) moved by the offsets of their best foreground class, clipped to `size`."""
        labels = logits[:, :-1].argmax(1)
        return _refine(boxes, offsets, labels, self.stages[stage].coder, size)

    @torch.no_grad()
    def detect(
        self, maps: Sequence[Tensor], proposals: Sequence[Tensor], batch: ImageBatch
    ) -> list[dict[str, Tensor]]:
        """Boxes, scores, labels (and masks) in pixels of the original images."""
        summed = 0
        for i, head in enumerate(self.bbox_head):
            logits, offsets = head(self.box_pool(maps, proposals))
            summed = summed + logits
            if i + 1 < len(self.stages):
                proposals = [
                    self.refine(i, *parts)
                    for parts in zip(
                        proposals,
                        _split(logits, proposals),
                        _split(offsets, proposals),
                        batch.sizes,
                        strict=True,
                    )
                ]
        detections = []
        for i, (boxes, own_logits, own_offsets) in enumerate(
            zip(
                proposals,
                _split(summed / len(self.stages), proposals),
                _split(offsets, proposals),
                strict=True,
            )
        ):
            decoded = self.stages[-1].coder.decode(
                boxes[:, None], own_offsets.unflatten(1, (-1, 4)), batch.sizes[i]
            )
            detections.append(self.select(decoded, own_logits, batch.factors(i)))
        if self.mask_head is not None:
            self.add_masks(self.mask_head, maps, batch, detections)
        return detections


def _refine(boxes: Tensor, offsets: Tensor, labels: Tensor, coder: BoxCoder, size) -> Tensor:
    rows = torch.arange(boxes.shape[0], device=boxes.device)
    own = offsets.unflatten(1, (-1, 4))[rows, labels]
    return coder.decode(boxes, own, size)


def _split(x: Tensor, per_image: Sequence[Tensor]) -> Sequence[Tensor]:
    """Rows of `x` image by image, as many as each of `per_image` has."""
    if len(per_image) == 1:  # whose number of rows an exported graph need not know
        return (x,)
    return x.split([len(part) for part in per_image])
