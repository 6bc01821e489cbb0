"""Semantic segmentation: a class for each pixel.

Shapes: N images, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seewide.data.augment_masks import ScaleCropFlip, ToLabels
from seewide.data.images import read_image
from seewide.data.label_maps import describe_label_maps, open_label_maps
from seewide.data.masks import IGNORE
from seewide.data.predictions import decode_png, encode_png, write_label_maps
from seewide.dense import (
    Segmenter,
    average_views,
    create_segmenter,
    list_segmenters,
    sliding_window,
    whole_image,
)
from seewide.dense.exporting import SegmenterGraph
from seewide.dense.images import scaled_size
from seewide.dense.segmentation_heads import resize
from seewide.errors import InputError
from seewide.options import check, option
from seewide.preprocess import Preprocess
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

DIVISOR = 32


@dataclass(frozen=True)
class SegmentationOptions:
    """System, image sizes, augmentation and how an image is evaluated."""

    system: str = option(
        "upernet", "Segmentation system.", choices=tuple(list_segmenters()), flag=True
    )
    short: int = option(
        512, "Length of the shorter side of an image in pixels.", least=32, flag=True
    )
    long: int = option(2048, "Largest length of the longer side in pixels.", least=32)
    crop: int = option(512, "Training: height and width of the crops in pixels.", least=32)
    scale: tuple[float, ...] = option(
        (0.5, 2.0), "Training: range of the random factor on `short` and `long`."
    )
    flip: float = option(0.5, "Training: probability of a horizontal flip.", least=0, most=1)
    photometric: bool = option(
        True, "Training: change brightness, contrast, saturation and hue at random."
    )
    ignore: int = option(
        IGNORE, "Mask value that belongs to no class, in addition to 255.", least=0, most=IGNORE
    )
    window: str = option(
        "whole", "Evaluation: the whole image, or windows of `crop` pixels.",
        choices=("whole", "slide"), may_change=True,
    )  # fmt: skip
    stride: int = option(
        341, "Evaluation: distance of the windows in pixels.", least=1, may_change=True
    )
    views: tuple[float, ...] = option(
        (1.0,), "Evaluation: scales whose probabilities are averaged.", may_change=True
    )
    mirror: bool = option(False, "Evaluation: average with the mirror images too.", may_change=True)

    def __post_init__(self) -> None:
        check(self)
        if len(self.scale) != 2 or not 0 < self.scale[0] <= self.scale[1]:
            raise InputError(f"scale must be two numbers in ascending order, got {self.scale}")
        if not self.views or min(self.views) <= 0:
            raise InputError(f"views must be numbers above 0, got {self.views}")


class Segmentation(Task[SegmentationOptions]):
    """The systems of `seewide.dense`; cross-entropy over pixels, ignored ones in the divisor."""

    name = "segmentation"
    preferred_to = ("video",)  # folders of images and of masks look like folders of frames
    file_formats = ("png",)
    Options = SegmentationOptions
    score = Score("miou", "max", "%", "mIoU")
    default_recipe = "small_segmentation"

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_label_maps(data)

    def open(self, data: str) -> DataSplits:
        found = open_label_maps(data, self.options.ignore)
        facts = {"class_names": list(found.class_names)}
        return DataSplits(found.name, found.train, found.val, found.held_out, facts, found.short)

    def announce(self, backbone: nn.Module) -> dict[str, Any]:
        return {"system": self.options.system}

    def measure(self, sample: Sample) -> dict[str, float]:
        classes = np.unique(np.asarray(sample["mask"]))
        return {**super().measure(sample), "classes in an image": int((classes != IGNORE).sum())}

    def preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        own = Preprocess.of(backbone)
        return {
            "short": self.options.short, "long": self.options.long,
            "mean": list(own.mean), "std": list(own.std),
        }  # fmt: skip

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        options, augmentation = self.options, None
        if train:
            augmentation = ScaleCropFlip(
                (options.short, options.long), options.crop, options.scale, options.flip,
                options.photometric,
            )  # fmt: skip
        return ToLabels(preprocess["mean"], preprocess["std"], augmentation)

    def collate(self, samples: list[Sample]) -> Batch:
        """Crops as one tensor, images of different sizes as a list."""
        if len({sample["image"].shape for sample in samples}) == 1:
            return torch.utils.data.default_collate(samples)
        return {key: [sample[key] for sample in samples] for key in samples[0]}

    # ---- model

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"features_only": True}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        return create_segmenter(self.options.system, backbone, len(facts["class_names"]))

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, 64, 96, generator=generator)

    def loss(self, model: Segmenter, batch: Batch) -> dict[str, Any]:
        terms = model.loss_terms(batch["image"], batch["mask"], IGNORE)
        return {
            "loss": sum(term.total for term in terms.values()),
            "weight": terms["loss_out"].weight,
            **{name: term.total.detach() for name, term in terms.items()},
        }

    # ---- exported files

    def graph(self, model: Segmenter) -> tuple[nn.Module, dict[str, Any]]:
        free = {"size": True, "least": 2 * DIVISOR, "multiple": DIVISOR}
        return SegmenterGraph(model), {"names": ("logits",), **free}

    def prepare_exported(self, facts: Facts) -> None:
        """Nothing: predictions need the options alone."""

    def run_exported(self, run, inputs: Tensor, preprocess: dict[str, Any]) -> dict[str, Tensor]:
        return {"out": run(inputs)[0]}

    # ---- results

    def predict(self, model: Segmenter, batch: Batch) -> list[Tensor]:
        """Class indices (H, W) of each image, at its own size."""
        return [self.probabilities(model, image[None])[0].argmax(0) for image in batch["image"]]

    def probabilities(self, model: Segmenter, x_1CHW: Tensor) -> Tensor:
        """(1, K, H, W) of a normalized image, as the options evaluate it."""
        options, size = self.options, tuple(x_1CHW.shape[-2:])
        views = [self._view(x_1CHW, factor) for factor in options.views]
        if options.window == "slide":
            one = partial(
                sliding_window, model, size=size, crop=options.crop, stride=options.stride
            )
        else:
            one = partial(whole_image, model, size=size)
        return average_views(one, views, options.mirror)

    def _view(self, x: Tensor, factor: float) -> Tensor:
        """The image at `short` x factor, then up to multiples of 32."""
        size = scaled_size(
            tuple(x.shape[-2:]), self.options.short * factor, self.options.long * factor
        )
        x = resize(x, size)
        return resize(x, [-(-side // DIVISOR) * DIVISOR for side in size])

    def metric(self, facts: Facts) -> SegmentationMetric:
        return SegmentationMetric(len(facts["class_names"]))

    def tables(self, metric: SegmentationMetric, facts: Facts) -> list[ResultTable]:
        iou, accuracy = metric.iou_K.tolist(), metric.accuracy_K.tolist()
        rows = [
            (name, round(iou[k], 1), round(accuracy[k], 1))
            for k, name in enumerate(facts["class_names"])
        ]
        worst = [
            (metric.names[i], round(100 * metric.images[i], 1)) for i in self.worst(metric)[:20]
        ]
        return [
            ResultTable("Per class", ("class", "IoU %", "accuracy %"), rows),
            ResultTable("Worst images", ("image", "correct pixels %"), worst),
        ]

    def figures(
        self, metric: SegmentationMetric, facts: Facts
    ) -> dict[str, Callable[[Path], Path]]:
        from seewide.analysis.figures import draw_confusion

        names = facts["class_names"]
        return {
            "confusion.png": lambda path: draw_confusion(metric.confusion_KK, names, path, "pixels")
        }

    def read(self, path: Path) -> Iterable[Sample]:
        image = read_image(path)
        yield {"image": image, "mask": Image.new("L", image.size, IGNORE), "name": path.name}

    def describe(self, prediction: list[Tensor], index: int, facts: Facts) -> dict[str, Any]:
        """`{"classes": [{"name", "share"}], "label_map": a PNG file in base64}`, largest first."""
        return _describe(prediction[index].cpu().numpy(), facts["class_names"])

    def labels(self, sample: Sample, facts: Facts) -> dict[str, Any]:
        return _describe(np.asarray(sample["mask"]), facts["class_names"])

    def rows(self, description: dict[str, Any]) -> list[dict[str, Any]]:
        """One row per class."""
        return [
            {"class": entry["name"], "share %": round(100 * entry["share"], 2)}
            for entry in description["classes"]
        ]

    def summary(self, description: dict[str, Any]) -> dict[str, str]:
        shares = [f"{e['name']} {100 * e['share']:.0f}%" for e in description["classes"][:6]]
        return {"classes": ", ".join(shares)}

    def write_files(
        self, format: str, found: Sequence[FilePrediction], folder: Path, facts: Facts
    ) -> list[Path]:
        return write_label_maps(found, facts["class_names"], folder)

    def worst(self, metric: SegmentationMetric) -> list[int]:
        return sorted(range(len(metric.images)), key=lambda index: metric.images[index])

    def plot(self, axes: Axes, sample: Sample, description: dict[str, Any]) -> None:
        from seewide.analysis.detections import plot_label_map

        names = {entry["index"]: entry["name"] for entry in description["classes"][:8]}
        plot_label_map(axes, sample["image"], decode_png(description["label_map"]), names)


def _describe(label_HW: np.ndarray, class_names: Sequence[str]) -> dict[str, Any]:
    """Shares of the classes among all pixels, and the map itself; IGNORE counts for none."""
    counts = np.bincount(label_HW.ravel(), minlength=len(class_names))[: len(class_names)]
    classes = [
        {"name": class_names[k], "index": int(k), "share": float(counts[k]) / label_HW.size}
        for k in np.argsort(-counts, kind="stable")
        if counts[k]
    ]
    return {"classes": classes, "label_map": encode_png(label_HW)}


class SegmentationMetric:
    """One confusion matrix over all pixels, without the ignored ones, as mmsegmentation has it."""

    def __init__(self, classes: int) -> None:
        self.confusion_KK = torch.zeros(classes, classes, dtype=torch.long)  # [true, predicted]
        self.images: list[float] = []  # share of correct pixels
        self.names: list[str] = []  # file names, or positions if the batches have none

    def update(self, prediction: Sequence[Tensor], batch: Batch) -> None:
        classes = len(self.confusion_KK)
        for found, truth in zip(prediction, batch["mask"], strict=True):
            found, truth = found.cpu().long(), truth.cpu().long()
            used = truth != IGNORE
            cells = truth[used] * classes + found[used]
            counts = torch.bincount(cells, minlength=classes**2).view(classes, classes)
            self.confusion_KK += counts
            self.images.append(float(counts.trace()) / max(int(counts.sum()), 1))
        self.names += batch.get("name") or range(len(self.names), len(self.images))

    def merge(self, others: Sequence[SegmentationMetric]) -> None:
        for other in others:
            self.confusion_KK = self.confusion_KK + other.confusion_KK
            self.images += other.images
            self.names += other.names

    @property
    def iou_K(self) -> Tensor:
        """Percent; NaN for a class that is neither there nor predicted."""
        common = self.confusion_KK.diag()
        return 100 * common / (self.confusion_KK.sum(0) + self.confusion_KK.sum(1) - common)

    @property
    def accuracy_K(self) -> Tensor:
        """Percent of the pixels of a class; NaN for one that is not there."""
        return 100 * self.confusion_KK.diag() / self.confusion_KK.sum(1)

    def compute(self) -> dict[str, float]:
        """`miou`, `macc` (means over the classes that have one) and `aacc`, in percent."""
        total = max(int(self.confusion_KK.sum()), 1)
        return {
            "miou": float(self.iou_K.nanmean().nan_to_num()),
            "macc": float(self.accuracy_K.nanmean().nan_to_num()),
            "aacc": 100 * float(self.confusion_KK.trace()) / total,
        }
