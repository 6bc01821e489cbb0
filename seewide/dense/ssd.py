"""SSDLite's head: SSD (1512.02325) with depthwise separable convolutions (1801.04381, section 6.2).

Written from facts about mmdetection 2.28 in the configuration of EMO (2301.01146).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .anchors import SSDAnchors
from .boxes import BoxCoder
from .conv import ConvModule
from .images import ImageBatch, Target
from .losses import LossTerm, smooth_l1_loss
from .matching import IGNORED, MatchRule
from .necks import SSD_NORM
from .single_stage import AnchorHead, Levels, Selection


class SSDHead(AnchorHead):
    """Per level a depthwise 3x3 and a pointwise convolution for classes and for boxes; softmax
    with the background last.

    Args:
        num_classes: C.
        in_channels: of the six levels.
        anchors: of the six levels.

    Shape: list of (N, in_channels[i], H_i, W_i) ->
        list of (N, 6 (C + 1), H_i, W_i), list of (N, 24, H_i, W_i)
    """

    NEGATIVES = 3  # hard negatives for each positive anchor

    def __init__(
        self, num_classes: int, in_channels: Sequence[int], anchors: SSDAnchors | None = None
    ):
        super().__init__(
            num_classes,
            outputs=num_classes + 1,
            anchors=(anchors or SSDAnchors())(),
            coder=BoxCoder((0.1, 0.1, 0.2, 0.2)),
            match=MatchRule(positive=0.5, negative=0.5, low_quality=0.0, first_tie_only=True),
            selection=Selection(score=0.02, per_level=1000, iou=0.45, count=200),
        )

        def predictor(channels: int, outputs: int) -> nn.Sequential:
            depthwise = ConvModule(
                channels, channels, 3, groups=channels, activation=nn.ReLU6, **SSD_NORM
            )
            return nn.Sequential(depthwise, nn.Conv2d(channels, outputs, 1))

        levels = list(zip(in_channels, self.anchors.per_cell, strict=True))
        self.cls_convs = nn.ModuleList(predictor(c, n * self.outputs) for c, n in levels)
        self.reg_convs = nn.ModuleList(predictor(c, n * 4) for c, n in levels)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.001)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def forward(self, maps: Sequence[Tensor]) -> Levels:
        logits = [conv(x) for conv, x in zip(self.cls_convs, maps, strict=True)]
        return logits, [conv(x) for conv, x in zip(self.reg_convs, maps, strict=True)]

    def scores(self, logits: Tensor) -> Tensor:
        return logits.softmax(-1)[..., :-1]

    def loss_terms(
        self, outputs: Levels, batch: ImageBatch, targets: Sequence[Target]
    ) -> dict[str, LossTerm]:
        """Cross-entropy of the positive anchors and of three times as many negatives of highest
        loss per image, and smooth L1; both over the positives, at least one per image."""
        logits_NAK, offsets_NA4, anchors, sizes = self.flat(outputs)
        classification = box = logits_NAK.sum() * 0
        count = 0
        for i, target in enumerate(targets):
            matched = self.matched(anchors, sizes, batch, i, target)
            positive = (matched >= 0).nonzero()[:, 0]
            objects = matched[positive]
            labels = torch.full_like(matched, self.num_classes)
            labels[positive] = target["labels"][objects]
            losses = F.cross_entropy(logits_NAK[i], labels, reduction="none")
            negative = losses[(matched < 0) & (matched != IGNORED)]
            hard = negative.topk(min(self.NEGATIVES * len(positive), len(negative))).values
            classification = classification + losses[positive].sum() + hard.sum()
            wanted = self.coder.encode(anchors[positive], target["boxes"][objects])
            box = box + smooth_l1_loss(offsets_NA4[i, positive], wanted.to(offsets_NA4), beta=1.0)
            count += max(len(positive), 1)
        return {
            "loss_cls": LossTerm(classification, float(count)),
            "loss_bbox": LossTerm(box, float(count)),
        }
