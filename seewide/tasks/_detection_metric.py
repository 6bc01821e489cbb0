"""Average precision of detections, and the errors of each image."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewide.errors import require
from seewide.tasks._task import Batch, ResultTable

EXTRA = "detection"
SHOWN_SCORE = 0.3  # detections below are not shown, and not counted as errors of an image


class DetectionMetric:
    """COCO's average precision by torchmetrics, in percent.

    Args:
        class_names: K names.
        masks: also of the masks.
    """

    def __init__(self, class_names: Sequence[str], masks: bool) -> None:
        detection = require("torchmetrics.detection", extra=EXTRA)
        require("faster_coco_eval", extra=EXTRA)
        self.class_names, self.masks = list(class_names), masks
        self.map = detection.MeanAveragePrecision(
            iou_type=("bbox", "segm") if masks else "bbox",
            class_metrics=True,
            extended_summary=True,
            backend="faster_coco_eval",
        )
        self.map.warn_on_many_detections = False  # SSDLite has 200
        self.images: list[dict[str, int]] = []
        self.names: list[str] = []  # file names, or positions if the batches have none
        self._result: dict[str, Any] | None = None

    def update(self, prediction: list[dict[str, Tensor]], batch: Batch) -> None:
        keys = (
            ("boxes", "scores", "labels", "masks") if self.masks else ("boxes", "scores", "labels")
        )
        found = [{k: v.detach().cpu() for k, v in p.items() if k in keys} for p in prediction]
        truth = [{k: v.cpu() for k, v in target.items()} for target in batch["target"]]
        if self.masks:
            for target in truth:
                target["masks"] = target["masks"].bool()
        self.map.update(found, truth)
        self.images += [_errors(f, t) for f, t in zip(found, truth, strict=True)]
        self.names += batch.get("name") or range(len(self.names), len(self.images))
        self._result = None

    def merge(self, others: Sequence[DetectionMetric]) -> None:
        for other in others:
            for name in self.map._defaults:
                getattr(self.map, name).extend(getattr(other.map, name))
            self.map._update_count += other.map._update_count
            self.images += other.images
            self.names += other.names
        self._result = None

    def result(self) -> dict[str, Any]:
        """All that torchmetrics computes."""
        if self._result is None:
            self._result = self.map.compute()
        return self._result

    def compute(self) -> dict[str, float]:
        """`map`, `map50`, `map75` and by size, in percent; `mask_...` of the masks."""
        result, scores = self.result(), {}
        for ours, theirs in (("", "bbox_" if self.masks else ""), ("mask_", "segm_")):
            for name in ("map", "map_50", "map_75", "map_small", "map_medium", "map_large"):
                value = result.get(theirs + name)
                if (ours or theirs in ("bbox_", "")) and value is not None and float(value) >= 0:
                    if ours and not self.masks:
                        continue
                    scores[ours + name.replace("_5", "5").replace("_7", "7")] = 100 * float(value)
        return {"map": 0.0, **scores}

    def _per_class(self, prefix: str) -> dict[int, float]:
        result = self.result()
        classes = result["classes"].reshape(-1).tolist()
        values = result[f"{prefix}map_per_class"].reshape(-1).tolist()
        return {c: 100 * v for c, v in zip(classes, values, strict=False) if v >= 0}

    def per_class(self) -> ResultTable:
        """AP of each class."""
        box = self._per_class("bbox_" if self.masks else "")
        mask = self._per_class("segm_") if self.masks else {}
        rows = [
            (name, round(box[i], 1), *([round(mask.get(i, 0.0), 1)] if self.masks else []))
            for i, name in enumerate(self.class_names)
            if i in box
        ]
        columns = ("class", "box AP %", *(["mask AP %"] if self.masks else []))
        return ResultTable("Per class", columns, rows)

    def worst(self) -> list[int]:
        """All images by their position in the held-out data, those with most errors first."""
        errors = [image["missed"] + image["false"] for image in self.images]
        return sorted(range(len(errors)), key=lambda i: -errors[i])

    def worst_images(self, count: int = 20) -> ResultTable:
        """The images with the most errors."""
        names = ("objects", "missed", "false")
        rows = [(self.names[i], *(self.images[i][k] for k in names)) for i in self.worst()]
        columns = ("image", "objects", "missed at IoU 0.5", f"false from score {SHOWN_SCORE}")
        return ResultTable("Worst images", columns, rows[:count])

    def draw_curves(self, path: Path) -> Path:
        """Precision over recall at IoU 0.5, per class."""
        from seewide.analysis.detections import draw_precision_recall

        precision = self.result()["bbox_precision" if self.masks else "precision"]
        curves = precision[0, :, :, 0, -1]  # IoU 0.5, all sizes, most detections: (101, K)
        classes = self.result()["classes"].reshape(-1).tolist()
        named = {self.class_names[c]: curves[:, i].tolist() for i, c in enumerate(classes)}
        return draw_precision_recall(named, path)


def _errors(found: dict[str, Tensor], truth: dict[str, Tensor]) -> dict[str, int]:
    """Objects of an image, those missed, and detections that fit none of their class."""
    from torchvision.ops import box_iou

    shown = found["scores"] >= SHOWN_SCORE
    boxes, labels = found["boxes"][shown], found["labels"][shown]
    crowd = truth.get("iscrowd", torch.zeros(len(truth["labels"]), dtype=torch.bool)).bool()
    same = labels[:, None] == truth["labels"]
    fits = (box_iou(boxes, truth["boxes"].to(boxes)) >= 0.5) & same
    return {
        "objects": int((~crowd).sum()),
        "missed": int((~fits.any(0) & ~crowd).sum()),
        "false": int((~fits.any(1)).sum()),
    }
