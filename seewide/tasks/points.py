"""Point-cloud classification: one label per cloud, seen as images.

Shapes: N clouds, P points, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.data.points import describe_points, open_points, read_cloud
from seewide.data.samples import Samples
from seewide.errors import InputError
from seewide.modalities import PointClassifier, PointsToViews
from seewide.modalities.point_sets import (
    axis_rotation,
    farthest_point_sampling,
    normalize_cloud,
    view_rotation,
)
from seewide.modalities.points import DepthViews
from seewide.options import check, option
from seewide.tasks._task import Batch, DataSplits, Facts, ResultTable, Sample, Score, Task
from seewide.tasks.classification import ClassificationMetric, most_probable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class PointsOptions:
    """Projection, augmentation and loss."""

    projection: str = option(
        "learned",
        "learned: P2P's projection; depth: three fixed depth views as the channels of one image.",
        choices=("learned", "depth"),
    )
    side: int = option(224, "Pixels of a view.", least=7)
    views: str = option(
        "authors", "Views of the learned projection.", choices=("authors", "three", "one")
    )
    neighbours: int = option(32, "Nearest points that a feature is made of.", least=1)
    points: int = option(
        0,
        "Points used of each cloud: random in training, else the farthest (0: all).",
        least=0,
    )
    rotate: str = option(
        "views",
        "Training rotation: views: P2P's random viewpoints; up: about the vertical axis; none.",
        choices=("views", "up", "none"),
    )
    scale: float = option(1.5, "Training: scale each axis by 1/F to F.", least=1)
    shift: float = option(0.2, "Training: shift each axis by up to this.", least=0)
    votes: int = option(
        1, "Viewpoints around the cloud whose logits evaluation averages.", least=1, most=40,
        may_change=True,
    )  # fmt: skip
    label_smoothing: float = option(0.2, "Label smoothing.", least=0, below=1)

    def __post_init__(self) -> None:
        check(self)


class Points(Task[PointsOptions]):
    """Views of a cloud, an image network, and a linear layer on all views' features."""

    name = "points"
    Options = PointsOptions
    score = Score("top1", "max", "%", "overall accuracy")
    unit = "clouds"
    default_recipe = "small_points"

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_points(data)

    def open(self, data: str) -> DataSplits:
        found = open_points(data)
        facts = {"class_names": list(found.class_names)}
        return DataSplits(
            found.name, found.train, found.val, found.held_out, facts, Path(found.name).name,
            in_memory=found.in_memory,
        )  # fmt: skip

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        splits = self.open(data)
        if splits.facts["class_names"] != facts["class_names"]:
            raise InputError(f"the classes of {data} are not those that the model was trained for")
        return splits.val, splits.held_out

    def measure(self, sample: Sample) -> dict[str, float]:
        points = np.asarray(sample["points"], np.float64)
        radius = np.linalg.norm(points - points.mean(0), axis=1).max()
        return {"points": len(points), "radius": float(radius)}

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"num_classes": 0}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        options = self.options
        if options.projection == "depth":
            frontend: nn.Module = DepthViews(options.side)
        else:
            frontend = PointsToViews(
                options.side,
                neighbours=options.neighbours,
                views=options.views,
                fusion=options.views != "one",
                robust_floor=True,
            )
        return PointClassifier(backbone, len(facts["class_names"]), frontend)

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        points = self.options.points or 256
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, max(points, self.options.neighbours), 3, generator=generator)

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        return _Cloud(self.options, train)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        logits = model(batch["points"], batch["positions"])
        smoothing = self.options.label_smoothing
        loss = F.cross_entropy(logits, batch["label"], label_smoothing=smoothing, reduction="sum")
        return {"loss": loss, "weight": len(logits)}

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (N, K), the mean over the viewpoints of the vote."""
        points = batch["points"]
        if self.options.votes == 1:
            return model(points, points)
        total: Tensor | float = 0.0
        for vote in range(self.options.votes):
            theta = points.new_full((1,), (0.1 + 1.9 * vote / self.options.votes) * math.pi)
            if self.options.rotate == "up":
                up = points.new_tensor([[0.0, 0.0, 1.0]])
                turn = axis_rotation(theta, up)
            else:
                turn = view_rotation(theta, torch.full_like(theta, -0.35 * math.pi))
            total = total + model(points, points @ turn.mT)
        return total / self.options.votes

    def metric(self, facts: Facts) -> CloudMetric:
        return CloudMetric(len(facts["class_names"]))

    def tables(self, metric: CloudMetric, facts: Facts) -> list[ResultTable]:
        return [metric.table(facts["class_names"], "clouds")]

    def figures(self, metric: CloudMetric, facts: Facts) -> dict[str, Callable[[Path], Path]]:
        return metric.figures(facts["class_names"])

    def read(self, path: Path) -> Iterable[Sample]:
        yield {"points": read_cloud(path), "label": 0}

    def describe(self, prediction: Tensor, index: int, facts: Facts) -> dict[str, Any]:
        """`{"classes": [{"name": ..., "probability": ...}]}`, the five most probable."""
        return {"classes": most_probable(prediction[index].float().softmax(0), facts)}

    def draw(self, sample: Sample, description: dict[str, Any]) -> Figure:
        """The cloud beside the depth views of its three planes."""
        from matplotlib.figure import Figure

        points = normalize_cloud(torch.as_tensor(np.array(sample["points"]))[None])
        figure = Figure(figsize=(10, 3), layout="constrained")
        axis = figure.add_subplot(1, 4, 1, projection="3d")
        axis.scatter(*points[0].T.numpy(), s=1)
        best = description["classes"][0]
        axis.set_title(f"{best['name']} {best['probability']:.0%}")
        for index, plane in enumerate(("xy", "yz", "zx")):
            axis = figure.add_subplot(1, 4, index + 2)
            axis.imshow(DepthViews(64)(points)[0, index].numpy(), cmap="gray")
            axis.set(title=plane, xticks=[], yticks=[])
        return figure


class _Cloud:
    """A cloud to `points` (P, 3) in the unit sphere and `positions`, turned while training."""

    def __init__(self, options: PointsOptions, train: bool) -> None:
        self.options, self.train = options, train

    def __call__(self, sample: Sample) -> Sample:
        points = normalize_cloud(torch.from_numpy(np.array(sample["points"], np.float32))[None])[0]
        count = self.options.points
        least = self.options.neighbours if self.options.projection == "learned" else 1
        if len(points) < max(count, least):
            raise InputError(f"the cloud has {len(points)} points, fewer than {max(count, least)}")
        if count and self.train:
            points = points[torch.randperm(len(points))[:count]]
        elif count < len(points) and count:
            points = points[farthest_point_sampling(points[None], count)[0]]
        positions = self._moved(points) if self.train else points
        return {"points": points, "positions": positions, "label": sample["label"]}

    def _moved(self, points: Tensor) -> Tensor:
        options = self.options
        if options.rotate == "views":
            theta = torch.empty(1).uniform_(0.04 * math.pi, 1.94 * math.pi)
            phi = torch.empty(1).uniform_(-0.4 * math.pi, -0.2 * math.pi)
            points = points @ view_rotation(theta, phi)[0].T
        elif options.rotate == "up":
            angle = torch.rand(1) * 2 * math.pi
            points = points @ axis_rotation(angle, torch.tensor([[0.0, 0.0, 1.0]]))[0].T
        factor = torch.empty(3).uniform_(1 / options.scale, options.scale)
        shift = torch.empty(3).uniform_(-1, 1) * options.shift
        return points * factor + shift


class CloudMetric(ClassificationMetric):
    """Overall accuracy (`top1`) and `macc`, the mean of the classes' recalls."""

    def compute(self) -> dict[str, float]:
        recall = self.recall_K[self.count_K > 0]
        mean = recall.float().mean().item() if len(recall) else 0.0
        return {**super().compute(), "macc": mean}
