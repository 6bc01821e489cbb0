"""Networks of other libraries as detectors and segmenters here, and predictions without learning.

Legend: N images, C classes, G objects.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torchvision.ops import box_iou, nms

from seewide.data.boxes import BoxSamples
from seewide.data.masks import IGNORE
from seewide.data.samples import Samples
from seewide.dense.losses import LossTerm, pixel_cross_entropy
from seewide.errors import require


class TorchvisionDetector(nn.Module):
    """torchvision's Faster R-CNN on MobileNetV3, from scratch, without a class for background."""

    masks = False

    def __init__(self, num_classes: int, short: int, long: int) -> None:
        super().__init__()
        from torchvision.models.detection import fasterrcnn_mobilenet_v3_large_fpn

        self.model = fasterrcnn_mobilenet_v3_large_fpn(
            weights=None, weights_backbone=None, num_classes=num_classes + 1, min_size=short,
            max_size=long,
        )  # fmt: skip

    def loss_terms(self, images: list[Tensor], targets: list[dict[str, Tensor]], **_) -> dict:
        images = [image.float() / 255 for image in images]
        targets = [{"boxes": t["boxes"], "labels": t["labels"] + 1} for t in targets]
        return {name: LossTerm(x, 1.0) for name, x in self.model(images, targets).items()}

    def forward(self, images: list[Tensor] | Tensor) -> list[dict[str, Tensor]]:
        if isinstance(images, Tensor):
            return self.model(list(images))
        found = self.model([image.float() / 255 for image in images])
        return [{**result, "labels": result["labels"] - 1} for result in found]


class SmpSegmenter(nn.Module):
    """A network of segmentation_models_pytorch, from scratch."""

    def __init__(self, name: str, encoder: str, num_classes: int) -> None:
        super().__init__()
        smp = require("segmentation_models_pytorch", extra="dev")
        self.num_classes = num_classes
        self.model = smp.create_model(name, encoder, encoder_weights=None, classes=num_classes)

    def loss_terms(self, x_NCHW: Tensor, labels_NHW: Tensor, ignore_index: int = IGNORE) -> dict:
        return {"loss_out": pixel_cross_entropy(self.model(x_NCHW), labels_NHW, ignore_index)}

    def forward(self, x_NCHW: Tensor) -> dict[str, Tensor]:
        return {"out": self.model(x_NCHW)}


def constant_boxes(samples: BoxSamples, candidates: int = 1500) -> dict[str, Tensor]:
    """The 100 boxes that fit the training objects best, the same for every image.

    Candidates are random training boxes; the score of one is the number of training objects of its
    class that it overlaps with an IoU of at least 0.5.
    """
    boxes = torch.tensor(
        np.concatenate([np.reshape(e.boxes, (-1, 4)) for e in samples.annotations])
    )
    labels = torch.tensor([label for e in samples.annotations for label in e.labels])
    taken = torch.randperm(len(boxes), generator=torch.Generator().manual_seed(0))[:candidates]
    same = labels[taken, None] == labels
    hits = ((box_iou(boxes[taken], boxes) >= 0.5) & same).sum(1).double()
    # Each class apart, as detectors suppress.
    shifted = boxes[taken] + labels[taken, None] * (boxes.max() + 1)
    keep = nms(shifted, hits, 0.5)[:100]
    chosen = taken[keep]
    return {
        "boxes": boxes[chosen].float(),
        "scores": (hits[keep] / len(samples)).clamp(max=1).float(),
        "labels": labels[chosen],
    }


def constant_labels(samples: Samples, classes: int, size: tuple[int, int]) -> Tensor:
    """The most frequent class at each pixel of images of `size` (height, width): (H, W)."""
    count_CHW = np.zeros((classes, *size), np.int32)
    for sample in samples:
        mask = sample["mask"].resize((size[1], size[0]), 0)
        mask_HW = np.asarray(mask)
        for label in range(classes):
            count_CHW[label] += mask_HW == label
    return torch.from_numpy(count_CHW.argmax(0))


def threshold_objects(image: np.ndarray) -> dict[str, Tensor]:
    """Connected parts of an image that are brighter (or, on a light ground, darker) than Otsu's
    threshold, as one class with masks; larger parts have higher scores."""
    from scipy import ndimage

    grey = image.astype(np.float64).mean(-1)
    bright = grey > _otsu(grey)
    if bright.mean() > 0.5:
        bright = ~bright
    parts, count = ndimage.label(bright)
    masks = [parts == i for i in range(1, count + 1) if (parts == i).sum() >= 16]
    areas = torch.tensor([float(mask.sum()) for mask in masks])
    return {
        "boxes": torch.tensor([_box(mask) for mask in masks]).reshape(-1, 4),
        "scores": areas / (areas.max() if len(areas) else 1),
        "labels": torch.zeros(len(masks), dtype=torch.long),
        "masks": torch.from_numpy(np.array(masks, bool).reshape(-1, *grey.shape)),
    }


def _otsu(grey: np.ndarray) -> float:
    """The threshold with the largest variance between the two sides."""
    count, edges = np.histogram(grey, 256)
    centre = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(count), np.cumsum(count[::-1])[::-1]
    low = np.cumsum(count * centre) / below.clip(1)
    high = (np.cumsum((count * centre)[::-1]) / above[::-1].clip(1))[::-1]
    return float(centre[(below[:-1] * above[1:] * (low[:-1] - high[1:]) ** 2).argmax()])


def _box(mask: np.ndarray) -> Sequence[float]:
    y, x = mask.nonzero()
    return [float(x.min()), float(y.min()), float(x.max() + 1), float(y.max() + 1)]
