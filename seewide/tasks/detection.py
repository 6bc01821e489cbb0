"""Detection of objects by boxes, and by masks where the data and the system have them.

Shapes: N images, G objects, D detections, K classes. Boxes are x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewide.data.augment_boxes import AUGMENTATIONS, ToTarget, box_augmentation
from seewide.data.boxes import BoxSamples
from seewide.data.coco import category_names, find_coco, open_coco, read_json
from seewide.data.images import read_image
from seewide.data.voc import find_voc, open_voc
from seewide.data.yolo import class_names, find_yolo, open_yolo
from seewide.dense import BatchImages, Detector, create_detector, list_detectors, means
from seewide.errors import InputError, require
from seewide.options import check, option
from seewide.preprocess import Preprocess
from seewide.tasks._task import Batch, DataSplits, Facts, ResultTable, Sample, Score, Task

EXTRA = "detection"
SHOWN_SCORE = 0.3  # detections below are not shown, and not counted as errors of an image


@dataclass(frozen=True)
class DetectionOptions:
    """System, image size and augmentation."""

    system: str = option(
        "retinanet", "Detection system.", choices=tuple(list_detectors()), flag=True
    )
    short: int = option(
        800,
        "Length of the shorter side of an image in pixels; of both sides for ssdlite.",
        least=32,
        flag=True,
    )
    long: int = option(1333, "Largest length of the longer side in pixels.", least=32)
    scales: tuple[int, ...] = option(
        (), "Training: shorter sides to choose from at random (empty: `short`)."
    )
    augment: str = option("resize", "Training: augmentation.", choices=AUGMENTATIONS)
    flip: float = option(0.5, "Training: probability of a horizontal flip.", least=0, most=1)
    freeze_statistics: bool = option(
        False,
        "Batch norms of the backbone retain the running statistics of their weights, as LSNet's "
        "detectors do; only with pretrained weights.",
    )
    eval_batch: int = option(
        1, "Images that evaluation processes at once.", least=1, may_change=True
    )

    def __post_init__(self) -> None:
        check(self)


class Detection(Task[DetectionOptions]):
    """The systems of `seewide.dense`.

    The losses of a micro-batch are divided by its own anchors and regions and averaged over images,
    as mmdetection does on each GPU: so `device_batch` is the unit of normalization.
    """

    name = "detection"
    Options = DetectionOptions
    score = Score("map", "max", "%", "box AP")
    default_recipe = "small_detection"

    # ---- data

    @classmethod
    def recognize(cls, data: str) -> str | None:
        folder = Path(data)
        if not folder.is_dir():
            return None
        for kind, find in (("COCO", find_coco), ("VOC", find_voc), ("YOLO", find_yolo)):
            if find(folder):
                return f"images with boxes in {kind}'s layout"
        return None

    def open(self, data: str) -> DataSplits:
        folder = Path(data)
        train, val, names, held_out = _open(folder)
        facts = {"class_names": names, "masks": train.decode is not None}
        if "mask" in self.options.system and not facts["masks"]:
            raise InputError(
                f"{data} has no masks, which {self.options.system} learns; take "
                f"{'faster_rcnn' if self.options.system == 'mask_rcnn' else 'cascade_rcnn'}"
            )
        self.found = {"train": str(train.counts), "val": str(val.counts)}
        used = train.with_objects()
        if not len(used):
            raise InputError(f"{data} has no box to learn from: {train.counts}")
        return DataSplits(
            str(folder.resolve()), used, val, f"{held_out}: {val.counts}", facts, folder.name
        )

    def announce(self, backbone: nn.Module) -> dict[str, Any]:
        return {"system": self.options.system, **getattr(self, "found", {})}

    def preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        own = Preprocess.of(backbone)
        return {
            "short": self.options.short, "long": self.options.long,
            "mean": list(own.mean), "std": list(own.std),
        }  # fmt: skip

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        options = self.options
        masks = "mask" in options.system
        if not train:
            return ToTarget(None, masks)
        kind = "ssd" if options.system == "ssdlite" else options.augment
        return ToTarget(
            box_augmentation(kind, options.short, options.long, options.scales, options.flip), masks
        )

    def collate(self, samples: list[Sample]) -> Batch:
        return {key: [sample[key] for sample in samples] for key in ("image", "target")}

    # ---- model

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"features_only": True}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        options, own = self.options, Preprocess.of(backbone)
        fixed = (options.short, options.short) if options.system == "ssdlite" else None
        images = BatchImages(
            options.short, options.long, fixed, 1 if fixed else 32, own.mean, own.std
        )
        return create_detector(
            options.system, backbone, len(facts["class_names"]), images=images,
            freeze_statistics=options.freeze_statistics,
        )  # fmt: skip

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        side = min(preprocess["short"], 128)
        return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(0))

    def loss(self, model: Detector, batch: Batch) -> dict[str, Any]:
        count = len(batch["image"])
        parts = means(model.loss_terms(batch["image"], batch["target"], resize=False))
        sums = {name: count * part for name, part in parts.items()}
        return {
            "loss": sum(sums.values()),
            "weight": count,
            **{name: part.detach() for name, part in sums.items()},
        }

    # ---- results

    def predict(self, model: Detector, batch: Batch) -> list[dict[str, Tensor]]:
        """Per image "boxes" (D, 4), "scores" (D,), "labels" (D,) and maybe "masks" (D, H, W)."""
        found, images = [], batch["image"]
        for start in range(0, len(images), self.options.eval_batch):
            found += model(images[start : start + self.options.eval_batch])
        for result in found:
            if "masks" in result:
                result["masks"] = result["masks"][:, 0]
        return found

    def metric(self, facts: Facts) -> DetectionMetric:
        return DetectionMetric(facts["class_names"], "mask" in self.options.system)

    def tables(self, metric: DetectionMetric, facts: Facts) -> list[ResultTable]:
        return [metric.per_class(), metric.worst_images()]

    def figures(self, metric: DetectionMetric, facts: Facts) -> dict[str, Callable[[Path], Path]]:
        return {"precision_recall.png": metric.draw_curves}

    def read(self, path: Path) -> Iterable[Sample]:
        import numpy as np

        yield {
            "image": read_image(path),
            "boxes": np.zeros((0, 4), np.float32),
            "labels": np.zeros(0, np.int64),
            "crowd": np.zeros(0, bool),
        }

    def describe(
        self, prediction: list[dict[str, Tensor]], index: int, facts: Facts
    ) -> dict[str, Any]:
        """`{"objects": [{"name", "score", "box"[, "mask"]}]}`, best first; masks as COCO's RLE."""
        found, objects = prediction[index], []
        for i, score in enumerate(found["scores"].tolist()):
            if score < SHOWN_SCORE:
                break
            entry = {
                "name": facts["class_names"][int(found["labels"][i])],
                "score": score,
                "box": [round(value, 2) for value in found["boxes"][i].tolist()],
            }
            if "masks" in found:
                entry["mask"] = encode_mask(found["masks"][i])
            objects.append(entry)
        return {"objects": objects}

    def draw(self, sample: Sample, description: dict[str, Any]):
        from seewide.analysis.detections import draw_objects

        return draw_objects(sample["image"], description["objects"])


def _open(folder: Path) -> tuple[BoxSamples, BoxSamples, list[str], str]:
    """Training and held-out samples, class names, and where the latter come from."""
    if found := find_coco(folder):
        content = read_json(found[0])
        categories = category_names(found[0], content)
        train, val = (open_coco(path, categories) for path in found)
        return train, val, list(categories.values()), str(found[1].relative_to(folder))
    if found := find_voc(folder):
        train, names = open_voc(found[0])
        val, _ = open_voc(found[1], names)
        return train, val, names, str(found[1].relative_to(folder))
    if found := find_yolo(folder):
        names = class_names(folder)
        train, val = (open_yolo(path, names) for path in found)
        return train, val, names, str(found[1].relative_to(folder))
    raise InputError(
        f"{folder} has no boxes in a known layout: COCO (train.json and val.json), VOC "
        "(Annotations and ImageSets/Main) or YOLO (images/train and labels/train)"
    )


def encode_mask(mask: Tensor) -> dict[str, Any]:
    """A mask (H, W) as COCO's compressed run lengths: {"size": [H, W], "counts": text}."""
    coder = require("faster_coco_eval.core.mask", extra=EXTRA)
    runs = coder.encode(mask.cpu().numpy().astype("uint8", order="F"))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}


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
        self._result = None

    def merge(self, others: Sequence[DetectionMetric]) -> None:
        for other in others:
            for name in self.map._defaults:
                getattr(self.map, name).extend(getattr(other.map, name))
            self.map._update_count += other.map._update_count
            self.images += other.images
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

    def worst_images(self, count: int = 20) -> ResultTable:
        """Images, by their position in the held-out data, with the most errors."""
        order = sorted(
            range(len(self.images)),
            key=lambda i: -sum(self.images[i][k] for k in ("missed", "false")),
        )
        rows = [(i, *(self.images[i][k] for k in ("objects", "missed", "false"))) for i in order]
        columns = ("image", "objects", "missed", "false detections")
        return ResultTable(
            f"Most errors (scores from {SHOWN_SCORE}, IoU 0.5)", columns, rows[:count]
        )

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
