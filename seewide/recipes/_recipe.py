"""What a recipe is: every number of a training run, and whose it is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from math import isfinite
from typing import Any

from seewide.errors import InputError, unknown

CHOICES = {
    "interpolation": ("bilinear", "bicubic", "nearest"),
    "crop_mode": ("center", "squash", "border"),
    "sparse_init": ("snip", "random"),
    "growth": ("random", "gradient"),
    "distill": ("hard", "soft"),
}


@dataclass(frozen=True)
class Recipe:
    """AdamW, cosine with warm-up, and the augmentations, as data.

    `batch_size` is the number of images per update; `device_batch` is how many go through the model
    at once (0: all of them), the rest accumulates. So a recipe of 32 GPUs runs, slowly, on one.
    """

    model: str = ""  # by timm name; a tag names the weights to start from; empty: said beside
    smoke_model: str = ""  # the smoke twin's: the least of the family; empty: the same
    stem_stride: int = 0  # of the first feature map; 0: the model's own, mostly 4

    # pictures
    image_size: int = 224
    interpolation: str = "bicubic"
    crop_pct: float = 0.875  # evaluation: the short side becomes image_size / crop_pct
    crop_mode: str = "center"  # evaluation, timm's words: center, squash or border
    min_crop: float = 0.08  # random resized crop: smallest share of the area
    flip: float = 0.5
    rand_augment: str = ""  # timm's words, such as rand-m9-mstd0.5-inc1; empty: none
    color_jitter: float = 0.0  # timm leaves it out where rand_augment is on
    erase: float = 0.0
    mixup: float = 0.0
    cutmix: float = 0.0
    repeated_augment: int = 1  # times a picture comes in an epoch, which stays as long
    limit_images: int = 0  # at most so many, for training and for validation; 0: all

    # updates
    epochs: int = 300
    batch_size: int = 4096
    device_batch: int = 0
    lr: float = 4e-3
    lr_batch: int = 0  # lr is for so many and scales with batch_size; 0: as is
    min_lr: float = 1e-6
    warmup_epochs: float = 5.0
    warmup_lr: float = 1e-6
    weight_decay: float = 0.05
    layer_decay: float = 1.0  # of the rate, from each group of layers to the one below it
    layer_groups: int = 0  # 12: stages 1, 2, nine parts of 3, 4, as the authors; 0: each block
    clip_grad: float = 0.0  # largest norm of the whole gradient; 0: as it comes
    clip_adaptive: float = 0.0  # AGC: largest gradient of a unit, relative to its weights; 0: none

    # regularisation
    drop_path: float = 0.0
    layer_scale: float = 0.0  # initial, where blocks have one; 0: the model's own, often 1e-6
    label_smoothing: float = 0.1
    ema_decay: float = 0.0  # 0: no average; else the average is what is validated and kept
    head_init_scale: float = 1.0
    sync_batch_norm: int = 0  # 1: batch norms over all processes
    fan_in_init: int = 0  # 1: fresh weights with std 1 / sqrt(fan-in), if there is layer norm

    # dynamic sparsity (SLaK, PeLK)
    sparsity: float = 0.0  # share of the weights of convolutions and linear layers that is 0
    sparse_init: str = "snip"  # snip, or random
    prune_rate: float = 0.3  # share of the kept weights that moves at first; falls with a cosine
    prune_every: int = 100  # updates
    growth: str = "random"  # random, or gradient

    # distillation
    teacher: str = ""  # by timm name with weight tag (unlearned without), or a checkpoint
    distill: str = "hard"  # hard: the teacher's class; soft: its temperature-smoothed distribution
    distill_alpha: float = 0.5  # weight of the teacher's part
    distill_tau: float = 1.0  # temperature of soft distillation

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            self._check(field.name, not isinstance(value, float) or isfinite(value), "finite")
        for name in ("image_size", "epochs", "batch_size", "repeated_augment", "prune_every"):
            self._check(name, getattr(self, name) >= 1, "at least 1")
        for name in ("lr", "crop_pct", "min_crop", "distill_tau"):
            self._check(name, getattr(self, name) > 0, "above 0")
        for name in (
            "device_batch", "limit_images", "warmup_epochs", "weight_decay", "mixup", "cutmix",
            "min_lr", "warmup_lr", "clip_grad", "clip_adaptive", "layer_scale", "lr_batch",
            "stem_stride",
        ):  # fmt: skip
            self._check(name, getattr(self, name) >= 0, "0 or more")
        for name in (
            "flip", "erase", "drop_path", "label_smoothing", "ema_decay", "fan_in_init",
            "sync_batch_norm", "prune_rate", "distill_alpha",
        ):  # fmt: skip
            self._check(name, 0 <= getattr(self, name) <= 1, "within 0..1")
        self._check("crop_pct", self.crop_pct <= 1, "at most 1")
        self._check("min_crop", self.min_crop <= 1, "at most 1")
        self._check("sparsity", 0 <= self.sparsity < 1, "0 or more and below 1")
        for name, words in CHOICES.items():
            allowed = f"{', '.join(words[:-1])} or {words[-1]}"
            self._check(name, getattr(self, name) in words, allowed)
        groups = self.layer_groups  # one for each stage is the least
        self._check("layer_groups", groups == 0 or groups >= 4, "0, or 4 or more")
        self._check("layer_decay", 0 < self.layer_decay <= 1, "above 0 and at most 1")
        self._check(
            "device_batch",
            not self.device_batch or self.batch_size % self.device_batch == 0,
            f"a divisor of batch_size={self.batch_size}",
        )

    def _check(self, name: str, holds: bool, allowed: str) -> None:
        if not holds:
            raise InputError(f"{name} must be {allowed}, got {getattr(self, name)!r}")

    @property
    def accumulate(self) -> int:
        """Passes per update."""
        return self.batch_size // (self.device_batch or self.batch_size)

    @property
    def scaled_lr(self) -> float:
        """The highest rate, for this batch size."""
        return self.lr * self.batch_size / (self.lr_batch or self.batch_size)

    def with_batch_size(self, batch_size: int) -> Recipe:
        """The same with another batch size; passes shrink to the largest divisor that fits."""
        largest = min(self.device_batch or batch_size, batch_size)
        fitting = next((size for size in range(largest, 1, -1) if batch_size % size == 0), largest)
        return replace(self, batch_size=batch_size, device_batch=fitting)

    def smoke(self) -> Recipe:
        """The twin that runs on a laptop within a minute: all the machinery, none of the hours.

        Two updates of two passes each at 32 px or less, on 16 images, by the least network of the
        family. A sparse network moves its weights after each update; a teacher is a tiny one that
        has learned nothing, so that nothing is downloaded; batch norms stay on their process, for
        torch synchronises them on GPUs only.
        """
        return replace(
            self,
            model=self.smoke_model or self.model,
            image_size=min(self.image_size, 32),
            epochs=1,
            batch_size=8,
            device_batch=4,
            limit_images=16,
            lr_batch=min(self.lr_batch, 8),
            warmup_epochs=min(self.warmup_epochs, 0.5),
            prune_every=1,
            teacher=self.teacher and "test_resnet",
            sync_batch_norm=0,
        )


def override(recipe: Recipe, settings: Mapping[str, Any]) -> Recipe:
    """Replace fields by name. Text is read as the type of the field (`{"lr": "1e-3"}`).

    Raises:
        InputError: unknown name, text that is no such number, or a number out of range.
    """
    kinds = {field.name: type(field.default) for field in fields(Recipe)}
    values = {}
    for name, value in settings.items():
        if name not in kinds:
            raise unknown("recipe key", name, kinds)
        try:
            values[name] = kinds[name](value)
        except ValueError:
            kind = {"int": "a whole number", "float": "a number"}[kinds[name].__name__]
            raise InputError(f"recipe key {name} is {kind}, got {value!r}") from None
    return replace(recipe, **values)
