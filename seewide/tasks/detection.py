"""Detection of objects by boxes, and by masks where the data and the system have them.

Shapes: N images, G objects, D detections, K classes. Boxes are x1, y1, x2, y2 in pixels.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from seewide.data.augment_boxes import AUGMENTATIONS, ToTarget, box_augmentation
from seewide.data.boxes import BoxSamples
from seewide.data.coco import category_names, encode_mask, find_coco, open_coco, read_json
from seewide.data.images import read_image
from seewide.data.predictions import write_coco, write_object_masks, write_yolo
from seewide.data.voc import find_voc, open_voc
from seewide.data.yolo import class_names, find_yolo, open_yolo
from seewide.dense import BatchImages, Detector, create_detector, list_detectors, means
from seewide.dense.exporting import DetectorGraph, run_graph
from seewide.errors import InputError
from seewide.options import check, option
from seewide.preprocess import Preprocess
from seewide.tasks._detection_metric import SHOWN_SCORE, DetectionMetric
from seewide.tasks._task import (
    Batch,
    DataSplits,
    Facts,
    FilePrediction,
    ResultTable,
    Sample,
    Score,
    Task,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DIVISOR = 32  # of the sides of padded images
LEAST_SIDE = 160  # pixels: the least side of images that an exported file takes


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
    file_formats = ("coco", "yolo", "masks")
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

    def measure(self, sample: Sample) -> dict[str, float]:
        """Size of the image, number of boxes, and the side of a square as large as the median."""
        boxes = sample["boxes"]
        values = {**super().measure(sample), "boxes": len(boxes)}
        if len(boxes):
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            values["box, pixels (root of the median area)"] = float(np.median(areas)) ** 0.5
        return values

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
        return {key: [sample[key] for sample in samples] for key in ("image", "target", "name")}

    # ---- model

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"features_only": True}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        options = self.options
        return create_detector(
            options.system, backbone, len(facts["class_names"]),
            images=self.images(self.preprocess(backbone)),
            freeze_statistics=options.freeze_statistics,
        )  # fmt: skip

    def images(self, preprocess: dict[str, Any]) -> BatchImages:
        """How images are resized, normalized and padded."""
        side = preprocess["short"]
        fixed = (side, side) if self.options.system == "ssdlite" else None
        mean, std = tuple(preprocess["mean"]), tuple(preprocess["std"])
        return BatchImages(side, preprocess["long"], fixed, 1 if fixed else DIVISOR, mean, std)

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        ssd = self.options.system == "ssdlite"
        side = preprocess["short"] if ssd else LEAST_SIDE
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

    # ---- exported files

    def graph(self, model: Detector) -> tuple[nn.Module, dict[str, Any]]:
        names = ("boxes", "scores", "labels", "masks")[: 4 if model.masks else 3]
        free = {} if model.images.fixed else {"least": LEAST_SIDE, "multiple": DIVISOR}
        return DetectorGraph(model), {"batch": False, "size": bool(free), "names": names, **free}

    def prepare_exported(self, facts: Facts) -> None:
        """Nothing: predictions need the options alone."""

    def run_exported(self, run, inputs: list[Tensor], preprocess: dict[str, Any]) -> list[dict]:
        return [run_graph(run, image, self.images(preprocess)) for image in inputs]

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

    def worst(self, metric: DetectionMetric) -> list[int]:
        return metric.worst()

    def read(self, path: Path) -> Iterable[Sample]:
        yield {
            "image": read_image(path),
            "name": path.name,
            "boxes": np.zeros((0, 4), np.float32),
            "labels": np.zeros(0, np.int64),
            "crowd": np.zeros(0, bool),
        }

    def describe(
        self, prediction: list[dict[str, Tensor]], index: int, facts: Facts
    ) -> dict[str, Any]:
        """`{"objects": [{"name", "score", "box"[, "mask"]}]}`, best first; masks as COCO's RLE."""
        found = prediction[index]
        shown = int((found["scores"] >= SHOWN_SCORE).sum())  # scores are in descending order
        return {"objects": _objects({key: x[:shown] for key, x in found.items()}, facts)}

    def labels(self, sample: Sample, facts: Facts) -> dict[str, Any]:
        found = {
            key: torch.as_tensor(sample[key])
            for key in ("boxes", "labels", "masks")
            if key in sample
        }
        return {"objects": _objects(found, facts)}

    def rows(self, description: dict[str, Any]) -> list[dict[str, Any]]:
        """One row per object."""
        return [
            {
                "name": entry["name"],
                "score": round(entry["score"], 4),
                **dict(zip(("x1", "y1", "x2", "y2"), entry["box"], strict=True)),
            }
            for entry in description["objects"]
        ]

    def summary(self, description: dict[str, Any]) -> dict[str, str]:
        count = Counter(entry["name"] for entry in description["objects"])
        words = ", ".join(f"{number} {name}" for name, number in count.most_common())
        return {"objects": words or "none"}

    def write_files(
        self, format: str, found: Sequence[FilePrediction], folder: Path, facts: Facts
    ) -> list[Path]:
        write = {"coco": write_coco, "yolo": write_yolo, "masks": write_object_masks}[format]
        return write(found, facts["class_names"], folder)

    def plot(self, axes: Axes, sample: Sample, description: dict[str, Any]) -> None:
        from seewide.analysis.detections import plot_objects

        plot_objects(axes, sample["image"], description["objects"])


def _objects(found: dict[str, Tensor], facts: Facts) -> list[dict[str, Any]]:
    """Objects of an image as JSON values; those of ground truth have no score."""
    objects = []
    for i, label in enumerate(found["labels"].tolist()):
        entry: dict[str, Any] = {"name": facts["class_names"][label]}
        if "scores" in found:
            entry["score"] = float(found["scores"][i])
        entry["box"] = [round(value, 2) for value in found["boxes"][i].tolist()]
        if "masks" in found:
            entry["mask"] = encode_mask(found["masks"][i].cpu().numpy())
        objects.append(entry)
    return objects


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
