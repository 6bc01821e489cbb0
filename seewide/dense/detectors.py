"""Detectors in torchvision's calling convention.

    detector.eval()(images)               list of {"boxes", "scores", "labels"[, "masks"]}
    detector.train()(images, targets)     dict of losses
    detector(x_NCHW)                      raw outputs of a batch of normalized images

`images` is a list of tensors (3, H, W), 8-bit or floating point in 0..1; `targets` a list of
{"boxes" (G, 4), "labels" (G,)[, "masks" (G, H, W)]}. Boxes are x1, y1, x2, y2 in pixels of the
image. Labels are 0 to num_classes - 1 everywhere, without a number for the background; code written
for torchvision, whose 0 is the background, runs unchanged with one class more. Masks come out as
(D, 1, H, W), already thresholded. Legend: N images, G objects, D detections.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from torch import Tensor, nn

from ..errors import InputError
from .backbone import FeaturePyramid
from .images import BatchImages, ImageBatch, Target, check_images, check_targets, fit_targets
from .losses import LossTerm, means
from .roi_heads import RoIHead
from .rpn import RPNHead
from .single_stage import AnchorHead


class Detector(FeaturePyramid):
    """Base: images in, detections or losses out.

    Args:
        backbone: see `FeaturePyramid`, which documents `pyramid` too.
        neck: from the backbone's maps to the pyramid.
        images: resizes, normalizes and pads the images.
    """

    masks = False

    def __init__(
        self, backbone: nn.Module, neck: nn.Module, images: BatchImages | None = None, **pyramid
    ):
        super().__init__(backbone, **pyramid)
        self.neck = neck
        self.images = images or BatchImages()

    @property
    @abstractmethod
    def num_classes(self) -> int:
        """Classes, without background."""

    @abstractmethod
    def terms(self, batch: ImageBatch, targets: Sequence[Target]) -> dict[str, LossTerm]:
        """Loss terms of a batch; targets in the coordinates of its resized images."""

    @abstractmethod
    def detect(self, batch: ImageBatch) -> list[dict[str, Tensor]]:
        """Detections in pixels of the original images."""

    @abstractmethod
    def outputs(self, x_NCHW: Tensor) -> dict[str, list[Tensor]]:
        """The pyramid and the outputs at its anchors for a batch of normalized images."""

    def features(self, batch: ImageBatch) -> list[Tensor]:
        """The pyramid."""
        return self.neck(self.maps(batch.x_NCHW))

    def forward(
        self, images: Sequence[Tensor], targets: Sequence[Target] | None = None
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        if isinstance(images, Tensor):
            return self.outputs(images)
        if self.training:
            return means(self.loss_terms(images, targets))
        check_images(images)
        return self.detect(self.images(images))

    def loss_terms(
        self,
        images: Sequence[Tensor],
        targets: Sequence[Target] | None,
        resize: bool = True,
    ) -> dict[str, LossTerm]:
        """Each loss as a sum and the number it is divided by, in training and evaluation mode.

        Args:
            images: see the module.
            targets: see the module.
            resize: False if the images have the wanted size, for example after augmentation.

        Raises:
            InputError: no targets, or targets that do not fit the images.
        """
        check_images(images)
        if targets is None:
            raise InputError("a detector in training mode needs targets, got None")
        check_targets(targets, len(images), self.num_classes, self.masks)
        batch = self.images(images, resize)
        return self.terms(batch, fit_targets(targets, batch))


class OneStageDetector(Detector):
    """Backbone, neck and one head on the anchors: RetinaNet, SSD.

    Args:
        bbox_head: the head.
        others: see `Detector`.
    """

    def __init__(self, backbone: nn.Module, neck: nn.Module, bbox_head: AnchorHead, **others):
        super().__init__(backbone, neck, **others)
        self.bbox_head = bbox_head

    @property
    def num_classes(self) -> int:
        return self.bbox_head.num_classes

    def outputs(self, x_NCHW: Tensor) -> dict[str, list[Tensor]]:
        pyramid = self.neck(self.maps(x_NCHW))
        logits, offsets = self.bbox_head(pyramid)
        return {"pyramid": pyramid, "logits": logits, "offsets": offsets}

    def terms(self, batch: ImageBatch, targets: Sequence[Target]) -> dict[str, LossTerm]:
        return self.bbox_head.loss_terms(self.bbox_head(self.features(batch)), batch, targets)

    def detect(self, batch: ImageBatch) -> list[dict[str, Tensor]]:
        return self.bbox_head.detect(self.bbox_head(self.features(batch)), batch)


class TwoStageDetector(Detector):
    """Backbone, neck, proposals and a head on the regions: Mask R-CNN, Cascade Mask R-CNN.

    Args:
        rpn_head: proposes regions.
        roi_head: reads them.
        train_proposals: most proposals of an image in training.
        test_proposals: and in evaluation.
        others: see `Detector`.
    """

    TRAIN_PER_LEVEL, TEST_PER_LEVEL = 2000, 1000

    def __init__(
        self,
        backbone: nn.Module,
        neck: nn.Module,
        rpn_head: RPNHead,
        roi_head: RoIHead,
        train_proposals: int = 1000,
        test_proposals: int = 1000,
        **others,
    ):
        super().__init__(backbone, neck, **others)
        self.rpn_head = rpn_head
        self.roi_head = roi_head
        self.train_proposals = train_proposals
        self.test_proposals = test_proposals
        self.masks = roi_head.mask_head is not None

    @property
    def num_classes(self) -> int:
        return self.roi_head.num_classes

    def outputs(self, x_NCHW: Tensor) -> dict[str, list[Tensor]]:
        pyramid = self.neck(self.maps(x_NCHW))
        logits, offsets = self.rpn_head(pyramid)
        return {"pyramid": pyramid, "logits": logits, "offsets": offsets}

    def terms(self, batch: ImageBatch, targets: Sequence[Target]) -> dict[str, LossTerm]:
        maps = self.features(batch)
        outputs = self.rpn_head(maps)
        terms = self.rpn_head.loss_terms(*outputs, batch, targets)
        proposals = self.rpn_head.proposals(
            *outputs, batch.sizes, self.TRAIN_PER_LEVEL, self.train_proposals
        )
        boxes = [boxes for boxes, _ in proposals]
        return terms | self.roi_head.loss_terms(maps, boxes, batch, targets)

    def detect(self, batch: ImageBatch) -> list[dict[str, Tensor]]:
        maps = self.features(batch)
        proposals = self.rpn_head.proposals(
            *self.rpn_head(maps), batch.sizes, self.TEST_PER_LEVEL, self.test_proposals
        )
        return self.roi_head.detect(maps, [boxes for boxes, _ in proposals], batch)
