"""From a list of images to a padded batch, and from ground truth to its coordinates.

Written from facts about mmdetection's test pipeline. Legend: N images, G objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from ..errors import InputError
from .boxes import Size

MEAN = (123.675 / 255, 116.28 / 255, 103.53 / 255)
STD = (58.395 / 255, 57.12 / 255, 57.375 / 255)

Target = Mapping[str, Tensor]


class ImageBatch(NamedTuple):
    """Images of a batch, each at the top left, zeros (the mean colour) to its right and below."""

    x_NCHW: Tensor
    sizes: list[Size]  # of each image before padding
    padded: list[Size]  # of each image padded to a multiple of the divisor
    original: list[Size]  # of each image before resizing

    def factors(self, index: int) -> Tensor:
        """Resized / original size of an image, as (x, y, x, y) in float32."""
        if self.sizes[index] is self.original[index]:  # free sizes of an exported graph
            return torch.ones(4, device=self.x_NCHW.device)
        (height, width), (old_height, old_width) = self.sizes[index], self.original[index]
        x, y = width / old_width, height / old_height
        return torch.tensor([x, y, x, y], dtype=torch.float32, device=self.x_NCHW.device)


def scaled_size(size: Size, short: int, long: int) -> Size:
    """`size` (height, width) with its ratio kept: shorter side at most `short`, longer `long`.

    Sides are int(side x scale + 0.5), as in mmdetection; torchvision's are floor(side x scale).
    """
    scale = min(long / max(size), short / min(size))
    return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)


def resize_image(image: Tensor, size: Size) -> Tensor:
    """`image` (3, H, W) resized bilinearly without antialiasing, as OpenCV does.

    8-bit images are rounded to 8 bits again, which is within one grey level of OpenCV.
    """
    if tuple(image.shape[-2:]) == tuple(size):
        return image
    floating = image if image.is_floating_point() else image.float()
    resized = F.interpolate(floating[None], size, mode="bilinear", align_corners=False)[0]
    return resized if image.is_floating_point() else resized.round().to(image.dtype)


@dataclass(frozen=True)
class BatchImages:
    """Resize, normalize and pad a list of images.

    Args:
        short: wanted length of the shorter side in pixels, as far as `long` allows.
        long: largest length of the longer side.
        fixed: (height, width) that every image is resized to instead; its ratio is not kept.
        divisor: sides are padded to a multiple of it.
        mean: of the channels, of values in 0..1.
        std: of the channels.
    """

    short: int = 800
    long: int = 1333
    fixed: Size | None = None
    divisor: int = 32
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD

    def __call__(self, images: Sequence[Tensor], resize: bool = True) -> ImageBatch:
        """Images (3, H, W), 8-bit or floating point in 0..1, as one batch."""
        original = [(int(image.shape[-2]), int(image.shape[-1])) for image in images]
        sizes = [self.size(size) if resize else size for size in original]
        padded = [(_up(height, self.divisor), _up(width, self.divisor)) for height, width in sizes]
        height, width = (max(sides) for sides in zip(*padded, strict=True))
        batch = []
        for image, size in zip(images, sizes, strict=True):
            x = self.normalized(resize_image(image, size))
            batch.append(F.pad(x, (0, width - size[1], 0, height - size[0])))
        return ImageBatch(torch.stack(batch), sizes, padded, original)

    def size(self, original: Size) -> Size:
        """What an image of `original` (height, width) is resized to."""
        return self.fixed or scaled_size(original, self.short, self.long)

    def normalized(self, image: Tensor) -> Tensor:
        """(image - mean) / std of an image (3, H, W)."""
        x = image if image.is_floating_point() else image.float() / 255
        mean, std = (x.new_tensor(values)[:, None, None] for values in (self.mean, self.std))
        return (x - mean) / std


def _up(side: int, divisor: int) -> int:
    return -(-side // divisor) * divisor


def fit_targets(targets: Sequence[Target], batch: ImageBatch) -> list[dict[str, Tensor]]:
    """Boxes and masks in the coordinates of the resized images; masks padded as the image is.

    Masks (G, H, W) follow by nearest neighbour, as OpenCV's do.
    """
    fitted = []
    for index, target in enumerate(targets):
        fit = {"boxes": target["boxes"] * batch.factors(index), "labels": target["labels"]}
        if "masks" in target:
            masks, size = target["masks"], batch.sizes[index]
            if tuple(masks.shape[-2:]) != size:
                resized = F.interpolate(masks[:, None].float(), size, mode="nearest")[:, 0]
                masks = resized.to(masks.dtype)
            height, width = batch.padded[index]
            fit["masks"] = F.pad(masks, (0, width - size[1], 0, height - size[0]))
        fitted.append(fit)
    return fitted


def check_images(images: object) -> None:
    """Raises InputError unless `images` is a non-empty list of images (3, H, W)."""
    if not isinstance(images, (list, tuple)) or not images:
        got = type(images).__name__ if not isinstance(images, (list, tuple)) else "an empty one"
        raise InputError(f"images must be a list of tensors (3, H, W), got {got}")
    for image in images:
        if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] != 3:
            shape = tuple(image.shape) if isinstance(image, Tensor) else type(image).__name__
            raise InputError(f"an image must be a tensor (3, H, W), got {shape}")
        if image.numel() == 0:
            raise InputError(f"an image needs pixels, got one of shape {tuple(image.shape)}")


def check_targets(targets: object, count: int, classes: int, masks: bool) -> None:
    """Raises InputError unless there is usable ground truth for each of `count` images."""
    if not isinstance(targets, (list, tuple)) or len(targets) != count:
        got = len(targets) if isinstance(targets, (list, tuple)) else type(targets).__name__
        raise InputError(f"targets must be a list of one dict per image ({count}), got {got}")
    for index, target in enumerate(targets):
        boxes, labels = target["boxes"], target["labels"]
        where = f"of image {index}"
        if boxes.ndim != 2 or boxes.shape[1] != 4 or len(labels) != len(boxes):
            raise InputError(
                f"boxes {where} must be (G, 4) and labels (G,), got {tuple(boxes.shape)} and "
                f"{tuple(labels.shape)}"
            )
        if not len(boxes):
            continue
        if not boxes.isfinite().all():
            raise InputError(f"boxes {where} must be finite, got {boxes.tolist()[:3]}")
        wrong = boxes[(boxes[:, 2:] <= boxes[:, :2]).any(1)]
        if len(wrong):
            raise InputError(
                f"boxes {where} must have x1 < x2 and y1 < y2, got {wrong[0].tolist()}"
            )
        if labels.min() < 0 or labels.max() >= classes:
            raise InputError(
                f"labels {where} must be 0 to {classes - 1}, got {labels.unique().tolist()[:9]}"
            )
        if masks and ("masks" not in target or len(target["masks"]) != len(boxes)):
            got = tuple(target["masks"].shape) if "masks" in target else "none"
            raise InputError(f"masks {where} must be ({len(boxes)}, H, W), got {got}")
