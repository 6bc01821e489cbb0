"""Augmentation of images with boxes and masks, by torchvision's transforms on tv_tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torchvision import tv_tensors
from torchvision.transforms import v2

from seewide.errors import InputError

from .samples import Sample

AUGMENTATIONS = ("resize", "detr", "lsj", "ssd")
FILL = {tv_tensors.Image: (124, 116, 104), "others": 0}  # ImageNet's mean


class RandomSizeCrop(nn.Module):
    """A crop of random height and width, each between `least` and `most` pixels or the image's."""

    def __init__(self, least: int, most: int) -> None:
        super().__init__()
        self.least, self.most = least, most

    def forward(self, *inputs: Any) -> Any:
        height, width = v2.functional.get_size(inputs[0])
        sides = [
            int(torch.randint(min(self.least, side), min(self.most, side) + 1, ()))
            for side in (height, width)
        ]
        return v2.RandomCrop(sides)(*inputs)


def box_augmentation(
    kind: str, short: int, long: int, scales: Sequence[int] = (), flip: float = 0.5
) -> v2.Transform:
    """A pipeline by name.

    Args:
        kind: "resize" to one of `scales`; "detr": that, or with equal chance a resize, a crop and a
            resize again (2005.12872, appendix A.4); "lsj": large-scale jitter (2012.07177), a crop
            of `short` x `short` of the image at 0.1 to 2 times that size; "ssd" (1512.02325,
            section 2.2): zoom out, crop by overlap, `short` x `short`, photometric distortion.
        short, long: wanted shorter side and largest longer side in pixels.
        scales: shorter sides to choose from; empty: `short`.
        flip: probability of a horizontal flip.

    Raises:
        InputError: no such kind.
    """
    if kind not in AUGMENTATIONS:
        raise InputError(f"augment must be one of {', '.join(AUGMENTATIONS)}, got {kind!r}")

    def resize(sides: Sequence[int]) -> v2.Transform:
        return v2.RandomShortestSize(list(sides), max_size=long, antialias=False)

    mirror = v2.RandomHorizontalFlip(flip)
    sides = scales or (short,)
    if kind == "resize":
        return v2.Compose([resize(sides), mirror])
    if kind == "detr":
        unit = short / 800
        first = resize([round(side * unit) for side in (400, 500, 600)])
        crop = RandomSizeCrop(round(384 * unit), round(600 * unit))
        cropped = v2.Compose([first, crop, resize(sides)])
        return v2.Compose([mirror, v2.RandomChoice([resize(sides), cropped])])
    size = (short, short)
    if kind == "lsj":
        jitter = v2.ScaleJitter(size, scale_range=(0.1, 2.0), antialias=False)
        crop = v2.RandomCrop(size, pad_if_needed=True, fill=FILL)
        return v2.Compose([mirror, jitter, crop])
    return v2.Compose(
        [
            v2.RandomPhotometricDistort(p=1.0),
            v2.RandomZoomOut(fill=FILL, side_range=(1.0, 4.0), p=0.5),
            v2.RandomIoUCrop(),
            v2.Resize(size, antialias=False),
            mirror,
        ]
    )


@dataclass(frozen=True)
class ToTarget:
    """A sample with boxes to {"image": (3, H, W) 8-bit, "target": {"boxes", "labels", ...}}.

    Args:
        augmentation: of training; None: evaluation, which leaves the image as it is and retains
            crowds, marked under "iscrowd".
        masks: whether the target has masks (G, H, W), if the sample has.
    """

    augmentation: v2.Transform | None = None
    masks: bool = False

    def __call__(self, sample: Sample) -> Sample:
        image = tv_tensors.Image(v2.functional.pil_to_tensor(sample["image"]))
        size = tuple(image.shape[-2:])
        used = ~torch.from_numpy(sample["crowd"])
        if self.augmentation is None:
            used = torch.ones_like(used)
        target: dict[str, Tensor] = {
            "boxes": tv_tensors.BoundingBoxes(
                torch.from_numpy(sample["boxes"])[used], format="XYXY", canvas_size=size
            ),
            "labels": torch.from_numpy(sample["labels"])[used],
        }
        if self.masks and "masks" in sample:
            target["masks"] = tv_tensors.Mask(torch.from_numpy(sample["masks"])[used])
        if self.augmentation is None:
            target["iscrowd"] = torch.from_numpy(sample["crowd"])
        else:
            image, target = self.augmentation(image, target)
            target = v2.ClampBoundingBoxes()(target)
            target = v2.SanitizeBoundingBoxes(min_size=1.0)(target)
        plain = {key: value.as_subclass(Tensor) for key, value in target.items()}
        if "masks" in plain:
            plain["masks"] = plain["masks"].to(torch.uint8)
        out = {"image": image.as_subclass(Tensor).contiguous(), "target": plain}
        return out | {key: sample[key] for key in ("image_id", "name") if key in sample}
