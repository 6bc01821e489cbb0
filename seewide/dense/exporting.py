"""Detectors and segmenters as graphs: one tensor in, final results out, nothing left to Python.

`seewide.export` records these modules. Images are resized, normalized and padded before
(`BatchImages`); suppression and pasting of masks are in the graph. Legend: D detections.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .boxes import clip_boxes
from .detectors import Detector
from .images import BatchImages, ImageBatch
from .segmenters import Segmenter

KEYS = ("boxes", "scores", "labels", "masks")


class DetectorGraph(nn.Module):
    """A detector for one normalized image, whose sides are multiples of 32.

    Shape: (1, 3, H, W) -> boxes (D, 4) in its pixels, scores (D,), labels (D,)[, masks (D, H, W)];
    masks are 8-bit, of 0 and 1.
    """

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    @property
    def backbone(self) -> nn.Module:
        """The detector's."""
        return self.detector.backbone

    def forward(self, x_1CHW: Tensor) -> tuple[Tensor, ...]:
        size = x_1CHW.shape[-2], x_1CHW.shape[-1]
        (found,) = self.detector.detect(ImageBatch(x_1CHW, [size], [size], [size]))
        results = [found[key] for key in KEYS if key in found]
        if "masks" in found:
            results[-1] = results[-1][:, 0].to(torch.uint8)
        return tuple(results)


class SegmenterGraph(nn.Module):
    """A segmenter for a batch of normalized images of any size.

    Shape: (N, 3, H, W) -> logits (N, C, H, W)
    """

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        self.segmenter = segmenter

    @property
    def backbone(self) -> nn.Module:
        """The segmenter's."""
        return self.segmenter.backbone

    def forward(self, x_NCHW: Tensor) -> Tensor:
        return self.segmenter(x_NCHW)["out"]


def run_graph(run, image: Tensor, images: BatchImages) -> dict[str, Tensor]:
    """The detections of an image, in its own pixels, by an exported `DetectorGraph`.

    Args:
        run: from a tensor (1, 3, H, W) to the graph's outputs.
        image: (3, H, W), 8-bit or floating point in 0..1.
        images: as the detector had it.

    Returns: "boxes", "scores", "labels"[, "masks" (D, 1, H, W), bool].
    """
    batch = images([image])
    found = dict(zip(KEYS, run(batch.x_NCHW), strict=False))
    found["boxes"] = clip_boxes(found["boxes"] / batch.factors(0), batch.original[0])
    if "masks" in found:
        height, width = batch.sizes[0]
        inside = found["masks"][:, None, :height, :width].float()
        resized = F.interpolate(inside, batch.original[0], mode="bilinear", align_corners=False)
        found["masks"] = resized >= 0.5
    return found
