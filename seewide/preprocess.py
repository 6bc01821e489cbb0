"""The evaluation preprocessing of images, the only one of the package.

Validation during training, `eval`, `predict`, `analyze`, exports and benchmarks all read it from
here; it travels with trained weights.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from math import isfinite
from typing import Any

import torch
from PIL import Image
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD, create_transform
from torch import Tensor, nn

from seewide.errors import InputError

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos", "box", "hamming")
CROP_MODES = ("center", "squash", "border")


@dataclass(frozen=True)
class Preprocess:
    """Resize, crop and normalize an image, as timm does for evaluation.

    Args:
        image_size: height and width of the output in pixels.
        interpolation: of the resizing, one of INTERPOLATIONS.
        crop_pct: `image_size` divided by the size that the image is resized to before cropping.
        crop_mode: `center` resizes the short side and takes the center; `squash` resizes both sides
            and so changes the aspect ratio; `border` resizes the long side and pads the short one.
        mean, std: of the normalization, for values in 0..1, per channel.
    """

    image_size: int = 224
    interpolation: str = "bicubic"
    crop_pct: float = 0.875
    crop_mode: str = "center"
    mean: tuple[float, ...] = IMAGENET_DEFAULT_MEAN
    std: tuple[float, ...] = IMAGENET_DEFAULT_STD

    def __post_init__(self) -> None:
        if not isinstance(self.image_size, int) or self.image_size < 1:
            raise InputError(f"image_size must be at least 1, got {self.image_size!r}")
        if not 0 < self.crop_pct <= 1:
            raise InputError(f"crop_pct must be above 0 and at most 1, got {self.crop_pct!r}")
        for name, allowed in (("interpolation", INTERPOLATIONS), ("crop_mode", CROP_MODES)):
            if (value := getattr(self, name)) not in allowed:
                raise InputError(f"{name} must be one of {', '.join(allowed)}, got {value!r}")
        for name in ("mean", "std"):
            values = getattr(self, name)
            if len(values) not in (1, 3) or not all(isfinite(v) for v in values):
                raise InputError(f"{name} must be three finite numbers, got {values!r}")
        if not all(value > 0 for value in self.std):
            raise InputError(f"std must be above 0, got {self.std!r}")

    @classmethod
    def of(cls, model: nn.Module, image_size: int | None = None) -> Preprocess:
        """What a timm network was trained for, by its `pretrained_cfg`.

        Args:
            image_size: instead of the network's own.
        """
        config = getattr(model, "pretrained_cfg", None) or {}
        size = config.get("input_size") or (3, 224, 224)
        return cls(
            image_size=image_size or size[-1],
            interpolation=config.get("interpolation") or cls.interpolation,
            crop_pct=config.get("crop_pct") or cls.crop_pct,
            crop_mode=config.get("crop_mode") or cls.crop_mode,
            mean=tuple(config.get("mean") or cls.mean),
            std=tuple(config.get("std") or cls.std),
        )

    def transform(self) -> Callable[[Image.Image], Tensor]:
        """RGB PIL image -> (3, image_size, image_size), float32, normalized."""
        return self._steps()

    def _steps(self) -> Any:
        """torchvision's `Compose`."""
        return create_transform(
            input_size=self.image_size,
            is_training=False,
            interpolation=self.interpolation,
            crop_pct=self.crop_pct,
            crop_mode=self.crop_mode,
            mean=self.mean,
            std=self.std,
        )

    def crop(self, image: Image.Image) -> Image.Image:
        """The first part of `transform`: a PIL image of image_size x image_size pixels."""
        for step in self._steps().transforms[:-2]:
            image = step(image)
        return image

    def normalize(self, image: Image.Image) -> Tensor:
        """The second part of `transform`, for an RGB image of any size: (3, H, W)."""
        to_tensor, normalize = self._steps().transforms[-2:]
        return normalize(to_tensor(image))

    def example(self, count: int = 1) -> Tensor:
        """Zeros of the shape of a batch: (count, 3, image_size, image_size)."""
        return torch.zeros(count, len(self.mean), self.image_size, self.image_size)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Preprocess:
        """Read back `to_dict`.

        Raises:
            InputError: a field is missing or unknown, or has a value of another kind.
        """
        try:
            names = {field.name for field in fields(cls)}
            if set(content) != names:
                wrong = set(content) ^ names
                raise InputError(f"preprocessing has no or an unknown field {min(wrong)}")
            lists = {name: tuple(map(float, content[name])) for name in ("mean", "std")}
            return cls(**{**content, **lists})
        except (TypeError, ValueError) as error:
            raise InputError(f"{content!r} is not a preprocessing: {error}") from None

    def __str__(self) -> str:
        """`224 px, bicubic, center crop of 0.875, mean 0.485 0.456 0.406, std 0.229 0.224 0.225`"""
        mean, std = (" ".join(f"{v:g}" for v in values) for values in (self.mean, self.std))
        return (
            f"{self.image_size} px, {self.interpolation}, {self.crop_mode} crop of "
            f"{self.crop_pct:g}, mean {mean}, std {std}"
        )
