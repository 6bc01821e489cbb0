"""Video classification: frames laid out as one large image for an image network.

Shapes: N videos, V views, T frames, H x W pixels, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from timm.data.mixup import Mixup
from torch import Tensor, nn

from seewide.data.frames import Video as StoredVideo
from seewide.data.frames import holds_frames, open_video
from seewide.data.samples import Samples
from seewide.data.video import describe_video, open_videos
from seewide.data.video_transform import ClipTransform
from seewide.errors import InputError
from seewide.modalities import FramesToMap, VideoClassifier
from seewide.modalities.video import (
    clip_indices,
    evaluation_clip_indices,
    random_clip_indices,
    spread_indices,
)
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
from seewide.tasks.classification import (
    ClassificationMetric,
    PerSampleSoftCrossEntropy,
    most_probable,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class VideoOptions:
    """Frames, layout, augmentation and loss."""

    frames: int = option(16, "Frames of a clip, a square number.", least=1)
    side: int = option(224, "Height and width of a frame in pixels.", least=8)
    layout: str = option(
        "tile",
        "tile: a grid of frames; official: the authors' reshape, which squeezes each frame into a "
        "band of rows.",
        choices=("tile", "official"),
    )
    difference: bool = option(False, "Replace frames by their differences from the one before.")
    sampling: str = option(
        "clip",
        "clip: `frames` frames from frames x rate consecutive ones; spread: evenly over the video.",
        choices=("clip", "spread"),
    )
    rate: int = option(4, "Frames between two frames of a clip.", least=1)
    short: str = option(
        "refuse",
        "Videos of fewer than `frames` frames: refuse them, or repeat their last frame.",
        choices=("refuse", "repeat"),
    )
    min_crop: float = option(
        0.08, "Smallest fraction of the area that a random crop takes.", above=0, most=1
    )
    flip: float = option(0.5, "Probability of a horizontal flip.", least=0, most=1)
    rand_augment: str = option(
        "", "RandAugment as timm spells it, the same for all frames of a clip (empty: none)."
    )
    erase: float = option(0.0, "Probability of random erasing.", least=0, most=1)
    mixup: float = option(0.0, "Alpha of mixup (0: none).", least=0)
    cutmix: float = option(0.0, "Alpha of CutMix (0: none).", least=0)
    label_smoothing: float = option(0.1, "Label smoothing.", least=0, below=1)
    clips: int = option(
        1, "Evaluation: clips of a video, whose probabilities are averaged.", least=1,
        may_change=True,
    )  # fmt: skip
    crops: int = option(
        1, "Evaluation: 1 central crop, or 3 along the longer side.", least=1, most=3,
        may_change=True,
    )  # fmt: skip
    part: str = option(
        "val", "Videos that `seewide eval` judges by.", choices=("val", "test"), may_change=True
    )

    def __post_init__(self) -> None:
        check(self)
        if math.isqrt(self.frames) ** 2 != self.frames:
            raise InputError(f"frames must be a square number (4, 9, 16, ...), got {self.frames}")
        if self.crops == 2:
            raise InputError("crops must be 1 or 3, got 2")
        if self.layout == "official" and self.side % math.isqrt(self.frames):
            raise InputError(
                f"layout 'official' of {self.frames} frames needs a side divisible by "
                f"{math.isqrt(self.frames)}, got {self.side}"
            )


class Video(Task[VideoOptions]):
    """An image of k x k frames, and an image network."""

    name = "video"
    Options = VideoOptions
    score = Score("top1", "max", "%", "top-1")
    unit = "videos"
    default_recipe = "small_video"
    preferred_to = ("classification",)

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_video(data)

    def open(self, data: str) -> DataSplits:
        found = open_videos(data)
        facts = {"class_names": list(found.class_names)}
        short = Path(found.name).name
        return DataSplits(found.name, found.train, found.val, found.held_out, facts, short)

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        found = open_videos(data)
        if list(found.class_names) != facts["class_names"]:
            raise InputError(f"the classes of {data} are not those that the model was trained for")
        if self.options.part == "val":
            return found.val, found.held_out
        if found.test is None:
            raise InputError(f"{data} has no third part to test on; task.part=val judges by val")
        return found.test, "the test videos"

    def measure(self, sample: Sample) -> dict[str, float]:
        video = sample["video"]
        video.verify()
        _, height, width, _ = video.read([0]).shape
        return {"frames": video.count(), "width, pixels": width, "height, pixels": height}

    def preprocess(self, backbone: nn.Module) -> dict[str, Any]:
        own = Preprocess.of(backbone)
        return {"mean": list(own.mean), "std": list(own.std)}

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        options = self.options
        return ClipTransform(
            _Frames(options, train),
            options.side,
            preprocess["mean"],
            preprocess["std"],
            options.crops,
            train,
            options.min_crop,
            options.flip,
            options.rand_augment,
            options.erase,
        )

    # ---- model

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"num_classes": len(facts["class_names"])}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        options, classes = self.options, len(facts["class_names"])
        self._criterion: nn.Module = nn.CrossEntropyLoss(
            label_smoothing=options.label_smoothing, reduction="none"
        )
        self._mix = None
        if options.mixup or options.cutmix:
            smoothing = options.label_smoothing
            self._mix = Mixup(
                options.mixup, options.cutmix, label_smoothing=smoothing, num_classes=classes
            )
            self._criterion = PerSampleSoftCrossEntropy()
        return VideoClassifier(backbone, classes, FramesToMap(options.layout, options.difference))

    def prepare(self, model: nn.Module, context: TrainingContext) -> None:
        if self._mix is not None and context.device_batch % 2:
            raise InputError(
                "mixup and cutmix pair clips, so a micro-batch must be even, got "
                f"{context.device_batch}"
            )

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        T, side = self.options.frames, self.options.side
        generator = torch.Generator().manual_seed(0)
        return torch.randn(count, 3, T, side, side, generator=generator)

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        clip_NCTHW, target = batch["clip"], batch["label"]
        if self._mix is not None:  # of frames as channels, so that CutMix cuts all at one place
            mixed, target = self._mix(clip_NCTHW.flatten(1, 2), target)
            clip_NCTHW = mixed.view_as(clip_NCTHW)
        return {"loss": self._criterion(model(clip_NCTHW), target).sum(), "weight": len(target)}

    # ---- results

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Log-probabilities (N, V, K) of every view of every video."""
        clips = batch["clip"]  # (N, V, C, T, H, W)
        logits = model(clips.flatten(0, 1)).unflatten(0, clips.shape[:2])
        return logits.float().log_softmax(2)

    def metric(self, facts: Facts) -> VideoMetric:
        return VideoMetric(len(facts["class_names"]))

    def tables(self, metric: VideoMetric, facts: Facts) -> list[ResultTable]:
        return [metric.table(facts["class_names"], "videos")]

    def figures(self, metric: VideoMetric, facts: Facts) -> dict[str, Callable[[Path], Path]]:
        return metric.figures(facts["class_names"])

    def is_input(self, folder: Path) -> bool:
        return holds_frames(folder)

    def read(self, path: Path) -> Iterable[Sample]:
        yield {"video": open_video(path), "label": 0}

    def describe(self, prediction: Tensor, index: int, facts: Facts) -> dict[str, Any]:
        """`{"classes": [{"name", "probability"}], "clips": [best probability of each view]}`."""
        probability_VK = prediction[index].exp().cpu()
        mean_K = probability_VK.mean(0)
        views = probability_VK[:, mean_K.argmax()].tolist()
        return {"classes": most_probable(mean_K, facts), "clips": views}

    def draw(self, sample: Sample, description: dict[str, Any]) -> Figure:
        """The first clip in both layouts beside the best classes."""
        from matplotlib.figure import Figure

        frames = _Frames(self.options, train=False)
        plain = ClipTransform(frames, self.options.side, (0.0,) * 3, (1.0,) * 3)
        clip_1CTHW = plain(sample)["clip"][:1]
        figure = Figure(figsize=(11, 3.6), layout="constrained")
        axes = figure.subplots(1, 3)
        for axis, layout in zip(axes, ("tile", "official"), strict=False):
            if layout == "official" and self.options.side % math.isqrt(self.options.frames):
                axis.set_axis_off()
                continue
            image_CHW = FramesToMap(layout)(clip_1CTHW)[0].clamp(0, 1)
            axis.imshow(image_CHW.permute(1, 2, 0).numpy())
            used = " (used)" if layout == self.options.layout else ""
            axis.set(title=f"{layout}{used}", xticks=[], yticks=[])
        classes = description["classes"][::-1]
        axes[2].barh([c["name"] for c in classes], [c["probability"] for c in classes])
        clips = ", ".join(f"{p:.2f}" for p in description["clips"][:8])
        title = f"{classes[-1]['name']} by view: {clips}"
        axes[2].set(xlim=(0, 1), xlabel="probability", title=title)
        return figure


@dataclass(frozen=True)
class _Frames:
    """The indices (clips, T) of the frames of a video that are shown; one clip in training."""

    options: VideoOptions
    train: bool

    def __call__(self, video: StoredVideo) -> np.ndarray:
        """
        Raises:
            InputError: the video is shorter than a clip, and the options refuse that.
        """
        options, count = self.options, video.count()
        T = options.frames
        if count < T and options.short == "refuse":
            raise InputError(
                f"{video} has {count} frames, fewer than the {T} of a clip; task.short=repeat "
                "repeats the last one"
            )
        if options.sampling == "spread":
            if self.train:
                return spread_indices(count, T, random=np.random)
            return spread_indices(count, T, options.clips)
        if self.train:
            return random_clip_indices(count, T, options.rate)[None]
        if options.clips == 1:
            return clip_indices(count, T, options.rate)[None]
        return evaluation_clip_indices(count, T, options.rate, options.clips)


class VideoMetric(ClassificationMetric):
    """Accuracy of videos, whose views' probabilities are averaged, and of single views."""

    def __init__(self, num_classes: int) -> None:
        super().__init__(num_classes)
        self.views = ClassificationMetric(num_classes)

    def update(self, prediction: Tensor, batch: Batch) -> None:
        V = prediction.shape[1]
        mean_NK = prediction.logsumexp(1) - math.log(V)
        super().update(mean_NK, batch)
        labels = batch["label"].repeat_interleave(V)
        self.views.update(prediction.flatten(0, 1), {"label": labels})

    def merge(self, others: Sequence[VideoMetric]) -> None:
        super().merge(others)
        self.views.merge([other.views for other in others])

    def compute(self) -> dict[str, float]:
        """Loss, `top1`, `top5` of videos, and `clip_top1` of single views."""
        return {**super().compute(), "clip_top1": self.views.compute()["top1"]}
