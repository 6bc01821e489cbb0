"""Image classification: one label per image.

Shapes: N images, C channels, H x W pixels, K classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from torch import Tensor, nn

from seewide.data import (
    Samples,
    classification_to_evaluate,
    describe_classification,
    open_classification,
    read_image,
)
from seewide.data.augment import OnImage, train_transform
from seewide.errors import InputError
from seewide.options import check, option
from seewide.preprocess import Preprocess
from seewide.tasks._task import (
    Batch,
    DataSplits,
    Facts,
    ResultTable,
    Sample,
    Score,
    Task,
    TrainingContext,
)

MOST_CONFUSED = 1000  # classes of a confusion matrix: more need gigabytes and show nothing


@dataclass(frozen=True)
class ClassificationOptions:
    """Image size, augmentation and loss."""

    image_size: int = option(
        224, "Height and width of the images in pixels.", least=8, flag=True, metavar="PIXELS"
    )
    interpolation: str = option(
        "bicubic", "Interpolation of resizing.", choices=("bilinear", "bicubic", "nearest")
    )
    crop_pct: float = option(
        0.875,
        "Evaluation: the shorter side is resized to image_size / crop_pct.",
        above=0,
        most=1,
    )
    crop_mode: str = option(
        "center", "Evaluation: timm's crop mode.", choices=("center", "squash", "border")
    )
    min_crop: float = option(
        0.08, "Smallest fraction of the area that a random crop takes.", above=0, most=1
    )
    flip: float = option(0.5, "Probability of a horizontal flip.", least=0, most=1)
    rand_augment: str = option(
        "", "RandAugment as timm spells it, such as rand-m9-mstd0.5-inc1 (empty: none)."
    )
    color_jitter: float = option(
        0.0, "Strength of color jitter (unused where rand_augment is on, as in timm).", least=0
    )
    erase: float = option(0.0, "Probability of random erasing.", least=0, most=1)
    mixup: float = option(0.0, "Alpha of mixup (0: none).", least=0)
    cutmix: float = option(0.0, "Alpha of CutMix (0: none).", least=0)
    label_smoothing: float = option(0.1, "Label smoothing.", least=0, most=1)
    loss: str = option(
        "ce",
        "ce: cross-entropy; bce: binary cross-entropy of each class, the mean over the classes.",
        choices=("ce", "bce"),
    )
    class_weights: str = option(
        "none",
        "balanced: weight each sample by N / (K n), n the samples of its class; none: equally.",
        choices=("none", "balanced"),
    )
    tta: bool = option(
        False, "Evaluation: average the logits of the image and its mirror image.", may_change=True
    )

    def __post_init__(self) -> None:
        check(self)


class Classification(Task[ClassificationOptions]):
    """Cross-entropy with label smoothing, mixup and CutMix, from timm.

    Mixup draws from numpy's global generator, which the engine seeds for each micro-batch.
    """

    name = "classification"
    Options = ClassificationOptions
    score = Score("top1", "max", "%", "top-1")

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_classification(data)

    @classmethod
    def default_recipe_for(cls, data: str) -> str:
        return "digits" if data == "digits" else cls.default_recipe

    def open(self, data: str) -> DataSplits:
        found = open_classification(data)
        self._label_counts = count_labels(found.train, len(found.class_names))
        facts = {"class_names": list(found.class_names)}
        return DataSplits(
            found.name, found.train, found.val, found.held_out, facts, found.short,
            in_memory=data == "digits",
        )  # fmt: skip

    def check_data(self, data: str) -> None:
        if describe_classification(data) is None:
            open_classification(data)  # raises the sentence

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        return classification_to_evaluate(data, facts["class_names"], trained_on=trained_on)

    def published_facts(self, backbone: nn.Module) -> Facts:
        return {"class_names": [str(index) for index in range(backbone.num_classes)]}

    def published_preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        return Preprocess.of(backbone).to_dict()

    def preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        """Mean and std of the network's weights, everything else of the options."""
        own = Preprocess.of(backbone).to_dict()
        names = {field.name for field in fields(self.options)}
        return {k: getattr(self.options, k) if k in names else v for k, v in own.items()}

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        evaluation = Preprocess.from_dict(preprocess)
        if not train:
            return OnImage(evaluation.transform())
        options = self.options
        return OnImage(
            train_transform(
                options.image_size,
                evaluation.mean,
                evaluation.std,
                interpolation=options.interpolation,
                min_crop=options.min_crop,
                flip=options.flip,
                rand_augment=options.rand_augment,
                color_jitter=options.color_jitter,
                erase=options.erase,
            )
        )

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"num_classes": len(facts["class_names"])}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        options, classes = self.options, len(facts["class_names"])
        smoothing = options.label_smoothing
        if options.loss == "bce":
            self._criterion: nn.Module = PerSampleBinaryCrossEntropy(smoothing)
        else:
            self._criterion = nn.CrossEntropyLoss(label_smoothing=smoothing, reduction="none")
        self._mix = None
        if options.mixup or options.cutmix:
            self._mix = Mixup(
                options.mixup,
                options.cutmix,
                label_smoothing=options.label_smoothing,
                num_classes=classes,
            )
            if options.loss == "ce":
                self._criterion = PerSampleSoftCrossEntropy()
        return backbone

    def prepare(self, model: nn.Module, context: TrainingContext) -> None:
        if self._mix is not None and context.device_batch % 2:
            raise InputError(
                "mixup and cutmix pair images, so a micro-batch must be even, got "
                f"{context.device_batch}"
            )

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        side = preprocess["image_size"]
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, side, side, generator=generator)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        x_NCHW, target = self.mixed(batch)
        loss_N = self._criterion(model(x_NCHW), target)
        if self.options.class_weights == "none":
            return {"loss": loss_N.sum(), "weight": len(x_NCHW)}
        weight_N = self.sample_weights(target)
        return {"loss": (loss_N * weight_N).sum(), "weight": float(weight_N.sum())}

    def sample_weights(self, target: Tensor) -> Tensor:
        """(N,) weights of samples by their class, or by their classes where they are mixed.

        Raises:
            InputError: the data does not say how many samples each class has.
        """
        counts_K = getattr(self, "_label_counts", None)
        if counts_K is None:
            raise InputError("class_weights=balanced needs data that lists its labels")
        K = len(counts_K)
        weight_K = counts_K.sum() / (K * counts_K.clamp(min=1))
        weight_K = weight_K.to(target.device, torch.float32)
        return weight_K[target] if target.ndim == 1 else target.float() @ weight_K

    def mixed(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images, mixed in place, and their targets: (N,) classes or (N, K) probabilities."""
        x_NCHW, y_N = batch["image"], batch["label"]
        if self._mix is None:
            return x_NCHW, y_N
        return self._mix(x_NCHW, y_N)

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (N, K)."""
        x_NCHW = batch["image"]
        if not self.options.tta:
            return model(x_NCHW)
        return (model(x_NCHW) + model(x_NCHW.flip(3))) / 2

    def metric(self, facts: Facts) -> ClassificationMetric:
        return ClassificationMetric(len(facts["class_names"]))

    def tables(self, metric: ClassificationMetric, facts: Facts) -> list[ResultTable]:
        return [metric.table(facts["class_names"], "images")]

    def figures(
        self, metric: ClassificationMetric, facts: Facts
    ) -> dict[str, Callable[[Path], Path]]:
        return metric.figures(facts["class_names"])

    def read(self, path: Path) -> Iterable[Sample]:
        yield {"image": read_image(path), "label": 0}

    def describe(self, prediction: Tensor, index: int, facts: Facts) -> dict[str, Any]:
        """`{"classes": [{"name": ..., "probability": ...}]}`, the five most probable."""
        return {"classes": most_probable(prediction[index].float().softmax(0), facts)}


def count_labels(samples: Samples, classes: int) -> Tensor | None:
    """(K,) samples of each class; None where the data does not list its labels."""
    if samples.labels is None:
        return None
    return torch.bincount(torch.as_tensor(samples.labels).long(), minlength=classes)


class PerSampleBinaryCrossEntropy(nn.Module):
    """The mean over the classes of the binary cross-entropy, for classes or (N, K) targets.

    As timm's `BinaryCrossEntropy`, before the mean over the samples.
    """

    def __init__(self, smoothing: float) -> None:
        super().__init__()
        self.smoothing = smoothing

    def forward(self, x_NK: Tensor, target: Tensor) -> Tensor:
        if target.ndim == 1:
            off = self.smoothing / x_NK.shape[1]
            target_NK = torch.full_like(x_NK, off)
            target_NK.scatter_(1, target[:, None], 1 - self.smoothing + off)
        else:
            target_NK = target.to(x_NK.dtype)
        losses_NK = nn.functional.binary_cross_entropy_with_logits(
            x_NK, target_NK, reduction="none"
        )
        return losses_NK.mean(1)


class PerSampleSoftCrossEntropy(SoftTargetCrossEntropy):
    """timm's loss for (N, K) targets, before the mean over the samples."""

    def forward(self, x_NK: Tensor, target_NK: Tensor) -> Tensor:
        return torch.sum(-target_NK * nn.functional.log_softmax(x_NK, dim=-1), dim=-1)


def most_probable(probability_K: Tensor, facts: Facts) -> list[dict[str, Any]]:
    """`[{"name": ..., "probability": ...}]` of the five most probable classes, best first."""
    best = probability_K.topk(min(5, len(probability_K)))
    pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
    return [{"name": facts["class_names"][k], "probability": p} for k, p in pairs]


class ClassificationMetric:
    """Accuracy, loss without label smoothing, and the confusion matrix, batch by batch."""

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self.in_top5 = 0
        self.loss_sum = 0.0
        self._true: list[Tensor] = []
        self._predicted: list[Tensor] = []

    def update(self, prediction: Tensor, batch: Batch) -> None:
        logits_NK, y_N = prediction.float().cpu(), batch["label"].cpu()
        best = logits_NK.topk(min(5, self.num_classes), dim=1).indices
        self._true.append(y_N)
        self._predicted.append(logits_NK.argmax(1))
        self.in_top5 += int((best == y_N[:, None]).any(1).sum())
        self.loss_sum += float(nn.functional.cross_entropy(logits_NK, y_N, reduction="sum"))

    def merge(self, others: Sequence[ClassificationMetric]) -> None:
        for other in others:
            self.in_top5 += other.in_top5
            self.loss_sum += other.loss_sum
            self._true += other._true
            self._predicted += other._predicted

    def compute(self) -> dict[str, float]:
        """Mean loss; top-1 and top-5 accuracy in percent (top-5 is 100 below five classes)."""
        count = max(len(self.true_N), 1)
        return {
            "loss": self.loss_sum / count,
            "top1": 100 * int((self.true_N == self.predicted_N).sum()) / count,
            "top5": 100 * self.in_top5 / count,
        }

    @property
    def true_N(self) -> Tensor:
        return torch.cat(self._true) if self._true else torch.zeros(0, dtype=torch.long)

    @property
    def predicted_N(self) -> Tensor:
        return torch.cat(self._predicted) if self._predicted else torch.zeros(0, dtype=torch.long)

    @property
    def count_K(self) -> Tensor:
        """Images of each class."""
        return self._count(self.true_N)

    @property
    def confusion_KK(self) -> Tensor:
        """Counts, `confusion_KK[true, predicted]`."""
        cells = self.true_N * self.num_classes + self.predicted_N
        counts = torch.bincount(cells, minlength=self.num_classes**2)
        return counts.view(self.num_classes, self.num_classes)

    @property
    def recall_K(self) -> Tensor:
        """Percent of the images of each class that are recognized; NaN for a class without."""
        return 100 * self._count(self._correct()) / self.count_K

    @property
    def precision_K(self) -> Tensor:
        """Percent of the predictions of each class that are correct; NaN without predictions."""
        return 100 * self._count(self._correct()) / self._count(self.predicted_N)

    def table(self, class_names: Sequence[str], samples: str) -> ResultTable:
        """Recall and precision of the classes that occur; `samples` names what is counted."""
        lists = (values.tolist() for values in (self.count_K, self.recall_K, self.precision_K))
        rows = [
            (name, count, round(recall, 1), round(precision, 1))
            for name, count, recall, precision in zip(class_names, *lists, strict=True)
            if count
        ]
        return ResultTable("Per class", ("class", samples, "recall %", "precision %"), rows)

    def figures(self, class_names: Sequence[str]) -> dict[str, Callable[[Path], Path]]:
        """The confusion matrix, unless there are more than `MOST_CONFUSED` classes."""
        from seewide.analysis.figures import draw_confusion

        if len(class_names) > MOST_CONFUSED:
            return {}
        return {"confusion.png": lambda path: draw_confusion(self.confusion_KK, class_names, path)}

    def _correct(self) -> Tensor:
        return self.true_N[self.true_N == self.predicted_N]

    def _count(self, classes_N: Tensor) -> Tensor:
        return torch.bincount(classes_N, minlength=self.num_classes)
