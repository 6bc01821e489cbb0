"""Augmentation of images with a class per pixel, as mmsegmentation's recipes have it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from .masks import IGNORE
from .samples import Sample


@dataclass(frozen=True)
class ScaleCropFlip:
    """Resize by a random factor, crop, flip, photometric distortion.

    Args:
        base: (short, long) sides in pixels that factor 1 resizes to, keeping the ratio.
        crop: height and width of the result.
        factors: range of the factor.
        flip: probability of a horizontal flip.
        photometric: whether to change brightness, contrast, saturation and hue.
        most: largest share of a crop that one class may have; up to ten crops are tried.
    """

    base: tuple[int, int]
    crop: int
    factors: tuple[float, float] = (0.5, 2.0)
    flip: float = 0.5
    photometric: bool = True
    most: float = 0.75

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """(3, H, W) and (H, W), 8-bit -> (3, crop, crop) and (crop, crop)."""
        low, high = self.factors
        factor = low + (high - low) * float(torch.rand(()))
        height, width = mask.shape
        short, long = (side * factor for side in self.base)
        scale = min(short / min(height, width), long / max(height, width))
        size = [int(height * scale + 0.5), int(width * scale + 0.5)]
        image = functional.resize(image, size, antialias=False)
        mask = tv_tensors.wrap(
            functional.resize(tv_tensors.Mask(mask), size), like=tv_tensors.Mask(mask)
        )
        image, mask = self._cropped(image, mask.as_subclass(Tensor))
        if float(torch.rand(())) < self.flip:
            image, mask = image.flip(-1), mask.flip(-1)
        if self.photometric:
            image = v2.RandomPhotometricDistort(
                brightness=(0.875, 1.125), contrast=(0.5, 1.5), saturation=(0.5, 1.5),
                hue=(-0.05, 0.05), p=0.5,
            )(tv_tensors.Image(image)).as_subclass(Tensor)  # fmt: skip
        down, right = self.crop - mask.shape[0], self.crop - mask.shape[1]
        image = functional.pad(image, [0, 0, right, down], fill=[124, 116, 104])
        mask = torch.nn.functional.pad(mask, (0, right, 0, down), value=IGNORE)
        return image, mask

    def _cropped(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        height, width = mask.shape
        for _ in range(10):
            y = int(torch.randint(max(0, height - self.crop) + 1, ()))
            x = int(torch.randint(max(0, width - self.crop) + 1, ()))
            part = mask[y : y + self.crop, x : x + self.crop]
            counts = torch.bincount(part[part != IGNORE].long().flatten())
            counts = counts[counts > 0]
            if len(counts) > 1 and counts.max() < self.most * counts.sum():
                break
        return image[..., y : y + self.crop, x : x + self.crop], part


@dataclass(frozen=True)
class ToLabels:
    """A sample to {"image": (3, H, W) normalized, "mask": (H, W) class indices[, "name"]}.

    Args:
        mean, std: of the normalization, for values in 0..1.
        augmentation: of training; None: evaluation, which leaves the image's size.
    """

    mean: Sequence[float]
    std: Sequence[float]
    augmentation: ScaleCropFlip | None = None

    def __call__(self, sample: Sample) -> Sample:
        image = functional.pil_to_tensor(sample["image"])
        mask = functional.pil_to_tensor(sample["mask"])[0]
        if self.augmentation is not None:
            image, mask = self.augmentation(image, mask)
        mean, std = (torch.tensor(values)[:, None, None] for values in (self.mean, self.std))
        named = {"name": sample["name"]} if "name" in sample else {}
        return {"image": (image.float() / 255 - mean) / std, "mask": mask.long(), **named}
