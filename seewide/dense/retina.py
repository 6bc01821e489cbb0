"""RetinaNet's head (1708.02002), section 4. Written from facts about mmdetection 2.28."""

from __future__ import annotations

from collections.abc import Sequence
from math import log

import torch
from torch import Tensor, nn

from .anchors import GridAnchors, octave_scales
from .boxes import BoxCoder
from .conv import ConvModule
from .images import ImageBatch, Target
from .losses import LossTerm, l1_loss, sigmoid_focal_loss
from .matching import IGNORED, MatchRule
from .single_stage import AnchorHead, Levels, Selection


class RetinaHead(AnchorHead):
    """Two towers of four 3x3 convolutions, shared by the levels; sigmoid classes, no background.

    Args:
        num_classes: C.
        channels: of the pyramid and the towers.
        strides: of the pyramid.

    Shape: list of (N, channels, H_i, W_i) -> list of (N, 9 C, H_i, W_i), list of (N, 36, H_i, W_i)
    """

    def __init__(
        self,
        num_classes: int,
        channels: int = 256,
        strides: tuple[int, ...] = (8, 16, 32, 64, 128),
    ):
        super().__init__(
            num_classes,
            outputs=num_classes,
            anchors=GridAnchors(strides, octave_scales())(),
            coder=BoxCoder(),
            match=MatchRule(positive=0.5, negative=0.4, low_quality=0.0),
            selection=Selection(score=0.05, per_level=1000, iou=0.5, count=100),
        )
        count = self.anchors.per_cell[0]
        self.cls_convs, self.reg_convs = (
            nn.ModuleList(ConvModule(channels, channels, 3, norm=False) for _ in range(4))
            for _ in range(2)
        )
        self.retina_cls = nn.Conv2d(channels, count * num_classes, 3, padding=1)
        self.retina_reg = nn.Conv2d(channels, count * 4, 3, padding=1)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.01)
                nn.init.zeros_(module.bias)
        nn.init.constant_(self.retina_cls.bias, -log(99))  # scores begin at 0.01

    def forward(self, maps: Sequence[Tensor]) -> Levels:
        logits, offsets = [], []
        for x in maps:
            classes = boxes = x
            for conv in self.cls_convs:
                classes = conv(classes)
            for conv in self.reg_convs:
                boxes = conv(boxes)
            logits.append(self.retina_cls(classes))
            offsets.append(self.retina_reg(boxes))
        return logits, offsets

    def scores(self, logits: Tensor) -> Tensor:
        return logits.sigmoid()

    def loss_terms(
        self, outputs: Levels, batch: ImageBatch, targets: Sequence[Target]
    ) -> dict[str, LossTerm]:
        """Focal loss and L1 loss, both over the positive anchors, at least one per image."""
        logits_NAC, offsets_NA4, anchors, sizes = self.flat(outputs)
        classification = box = logits_NAC.sum() * 0
        count = 0
        for i, target in enumerate(targets):
            matched = self.matched(anchors, sizes, batch, i, target)
            used = matched != IGNORED
            labels = torch.full_like(matched, self.num_classes)
            positive = (matched >= 0).nonzero()[:, 0]
            objects = matched[positive]
            labels[positive] = target["labels"][objects]
            classification = classification + sigmoid_focal_loss(logits_NAC[i, used], labels[used])
            wanted = self.coder.encode(anchors[positive], target["boxes"][objects])
            box = box + l1_loss(offsets_NA4[i, positive], wanted.to(offsets_NA4))
            count += max(len(positive), 1)
        return {
            "loss_cls": LossTerm(classification, float(count)),
            "loss_bbox": LossTerm(box, float(count)),
        }
