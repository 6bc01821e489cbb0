"""Semantic segmentation: the class of every pixel.

`--set system=linear` is a 1x1 convolution on the maps of any timm network; the other systems are
those of `seewide.dense`. Shapes: N images, K classes, H x W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from seewide.data import Samples, read_image
from seewide.data.masks import (
    IGNORE,
    MaskTransform,
    colorize,
    describe_masks,
    open_masks,
)
from seewide.dense import create_segmenter, list_segmenters
from seewide.dense.losses import pixel_cross_entropy
from seewide.dense.segmentation_heads import resize
from seewide.errors import InputError
from seewide.options import check, option
from seewide.preprocess import Preprocess
from seewide.tasks._task import Batch, DataSplits, Facts, ResultTable, Sample, Score, Task

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LINEAR = "linear"


@dataclass(frozen=True)
class SegmentationOptions:
    """System, image size and augmentation."""

    system: str = option(
        LINEAR,
        "Head on the backbone: linear, or a system of seewide.dense.",
        choices=(LINEAR, *list_segmenters()),
    )
    image_size: int = option(
        512, "Height and width of the images in pixels.", least=16, flag=True, metavar="PIXELS"
    )
    min_scale: float = option(
        0.5, "Smallest random factor on the shorter side, which is then cropped.", above=0
    )
    max_scale: float = option(2.0, "Largest random factor on the shorter side.", above=0)
    flip: float = option(0.5, "Probability of a horizontal flip.", least=0, most=1)
    distort: float = option(0.5, "Probability of photometric distortion.", least=0, most=1)
    ignore: int = option(
        IGNORE, "Mask value of pixels that belong to no class, besides 255.", least=0, most=255
    )

    def __post_init__(self) -> None:
        check(self)
        if self.min_scale > self.max_scale:
            raise InputError(
                f"min_scale must be at most max_scale, got {self.min_scale} and {self.max_scale}"
            )


class LinearSegmenter(nn.Module):
    """A 1x1 convolution on all maps of a backbone, which are resized to the finest and joined.

    Shape: (N, 3, H, W) -> `{"out": (N, K, H, W)}`, the convention of torchvision and seewide.dense.
    """

    def __init__(self, backbone: nn.Module, num_classes: int) -> None:
        super().__init__()
        self.backbone = backbone
        channels = backbone.feature_info.channels()
        self.norms = nn.ModuleList(nn.BatchNorm2d(count) for count in channels)
        self.classifier = nn.Conv2d(sum(channels), num_classes, 1)

    def forward(self, x_NCHW: Tensor) -> dict[str, Tensor]:
        maps = [norm(x) for norm, x in zip(self.norms, self.backbone(x_NCHW), strict=True)]
        joined = torch.cat([resize(x, maps[0].shape[-2:]) for x in maps], dim=1)
        return {"out": resize(self.classifier(joined), x_NCHW.shape[-2:])}


class Segmentation(Task[SegmentationOptions]):
    """Cross-entropy per pixel; as in mmsegmentation, ignored pixels count in the mean."""

    name = "segmentation"
    Options = SegmentationOptions
    score = Score("miou", "max", "%", "mIoU")
    default_recipe = "small_segmentation"

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_masks(data)

    def open(self, data: str) -> DataSplits:
        found = open_masks(data, ignore=self.options.ignore)
        facts = {"class_names": list(found.class_names)}
        return DataSplits(found.name, found.train, found.val, found.held_out, facts, found.short)

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        splits = self.open(data)
        if splits.facts != facts:
            raise InputError(
                f"{data} has {len(splits.facts['class_names'])} classes, the model was trained for "
                f"{len(facts['class_names'])}, or their names differ"
            )
        return splits.val, splits.held_out

    def preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        own = Preprocess.of(backbone, self.options.image_size).to_dict()
        return {**own, "crop_pct": 1.0, "crop_mode": "squash", "interpolation": "bilinear"}

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        own, options = Preprocess.from_dict(preprocess), self.options
        return MaskTransform(
            own.image_size,
            own.mean,
            own.std,
            train=train,
            scale=(options.min_scale, options.max_scale),
            flip=options.flip,
            distort=options.distort,
        )

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"features_only": True}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        classes = len(facts["class_names"])
        if self.options.system == LINEAR:
            return LinearSegmenter(backbone, classes)
        return create_segmenter(self.options.system, backbone, classes)

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        side = preprocess["image_size"]
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, side, side, generator=generator)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        if isinstance(model, LinearSegmenter):
            terms = {"out": pixel_cross_entropy(model(batch["image"])["out"], batch["mask"])}
        else:
            terms = model.loss_terms(batch["image"], batch["mask"])
        # Every head has a prediction for each pixel, so all terms have the same weight.
        sums = {name: term.total for name, term in terms.items()}
        weight = next(iter(terms.values())).weight
        return {"loss": sum(sums.values()), "weight": weight, **(sums if len(sums) > 1 else {})}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (N, K, H, W)."""
        return model(batch["image"])["out"]

    def metric(self, facts: Facts) -> SegmentationMetric:
        return SegmentationMetric(len(facts["class_names"]))

    def tables(self, metric: SegmentationMetric, facts: Facts) -> list[ResultTable]:
        """IoU and accuracy per class."""
        iou_K, accuracy_K = metric.iou_K.tolist(), metric.accuracy_K.tolist()
        rows = [
            (name, round(iou, 1), round(accuracy, 1))
            for name, iou, accuracy in zip(facts["class_names"], iou_K, accuracy_K, strict=True)
        ]
        return [ResultTable("Per class", ("class", "IoU %", "accuracy %"), rows)]

    def figures(
        self, metric: SegmentationMetric, facts: Facts
    ) -> dict[str, Callable[[Path], Path]]:
        from seewide.analysis.pictures import draw_confusion

        names, confusion_KK = facts["class_names"], metric.confusion_KK
        return {"confusion.png": lambda path: draw_confusion(confusion_KK, names, path)}

    def read(self, path: Path) -> Iterable[Sample]:
        image = read_image(path)
        yield {"image": image, "mask": Image.new("L", image.size, IGNORE)}

    def describe(self, prediction: Tensor, index: int, facts: Facts) -> dict[str, Any]:
        """`{"classes": [{"name": ..., "pixels": fraction}], "mask": rows}`, most frequent first."""
        mask_HW = prediction[index].argmax(0).cpu()
        counts = torch.bincount(mask_HW.flatten(), minlength=len(facts["class_names"]))
        order = counts.argsort(descending=True, stable=True).tolist()
        classes = [
            {"name": facts["class_names"][k], "pixels": counts[k].item() / mask_HW.numel()}
            for k in order
            if counts[k]
        ]
        return {"classes": classes, "mask": mask_HW.tolist()}

    def draw(self, sample: Sample, description: dict[str, Any]) -> Figure:
        """The image beside its predicted classes."""
        from matplotlib.figure import Figure

        image = sample["image"]
        mask = colorize(torch.tensor(description["mask"])).resize(image.size, Image.NEAREST)
        figure = Figure(figsize=(10, 5 * image.height / image.width), layout="constrained")
        names = ", ".join(entry["name"] for entry in description["classes"][:5])
        for axes, shown, title in zip(
            figure.subplots(1, 2), (image, mask), ("image", names), strict=True
        ):
            axes.imshow(np.asarray(shown))
            axes.set_title(title, parse_math=False)
            axes.axis("off")
        return figure


class SegmentationMetric:
    """One confusion matrix; mIoU, aAcc and mAcc as mmsegmentation defines them."""

    def __init__(self, num_classes: int) -> None:
        self.confusion_KK = torch.zeros(num_classes, num_classes, dtype=torch.long)
        self.loss_sum = 0.0
        self.pixels = 0

    def update(self, prediction: Tensor, batch: Batch) -> None:
        mask_NHW = batch["mask"]
        total, weight = pixel_cross_entropy(prediction.float(), mask_NHW)
        self.loss_sum += float(total)
        self.pixels += int(weight)
        valid_NHW = mask_NHW != IGNORE
        true, predicted = mask_NHW[valid_NHW], prediction.argmax(1)[valid_NHW]
        classes = len(self.confusion_KK)
        cells = torch.bincount(true * classes + predicted, minlength=classes**2)
        self.confusion_KK += cells.view(classes, classes).cpu()

    def merge(self, others: Sequence[SegmentationMetric]) -> None:
        for other in others:
            self.confusion_KK += other.confusion_KK
            self.loss_sum += other.loss_sum
            self.pixels += other.pixels

    def compute(self) -> dict[str, float]:
        """Mean loss; mIoU, aAcc and mAcc in percent, over the classes that occur."""
        correct, total = self.confusion_KK.diag().sum(), self.confusion_KK.sum()
        return {
            "loss": self.loss_sum / max(self.pixels, 1),
            "miou": float(self.iou_K.nanmean()),
            "aacc": 100 * float(correct / total.clamp(min=1)),
            "macc": float(self.accuracy_K.nanmean()),
        }

    @property
    def iou_K(self) -> Tensor:
        """Intersection over union in percent; NaN for a class neither true nor predicted."""
        both_K = self.confusion_KK.diag().double()
        union_K = self.confusion_KK.sum(0) + self.confusion_KK.sum(1) - both_K
        return 100 * both_K / union_K

    @property
    def accuracy_K(self) -> Tensor:
        """Percent of the pixels of each class; NaN for a class without."""
        return 100 * self.confusion_KK.diag().double() / self.confusion_KK.sum(1)
