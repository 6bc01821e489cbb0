"""The layouts of ADE20K, Pascal VOC and CamVid: images with a class per pixel.

ADE20K  `images/{training,validation}` and `annotations/...`; 0 is "other" and ignored, 1..150
VOC     `JPEGImages`, `SegmentationClass`, `ImageSets/Segmentation/{train,val}.txt`; 255 is void
CamVid  `{train,val}` with `{train,val}_labels` or `{train,val}annot`; 11 is void

Class names of `classes.txt` come first. Plain folders: `seewide.data.masks`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .labels import check_classes, read_class_names
from .masks import IGNORE, ImageMasks, MaskSamples, describe_masks, open_masks, pair_masks

VOC_NAMES = [
    "background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair",
    "cow", "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa",
    "train", "tvmonitor",
]  # fmt: skip
CAMVID_NAMES = [
    "sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian",
    "bicyclist",
]  # fmt: skip
ADE20K_CLASSES = 150


class ShiftedMasks(MaskSamples):
    """Masks whose classes are stored from 1 on; 0 is ignored."""

    def mask_values(self, index: int) -> np.ndarray:
        values = super().mask_values(index)
        unknown = (values == 0) | (values == IGNORE)
        return np.where(unknown, np.uint8(IGNORE), values - np.uint8(1))


def describe_label_maps(data: str) -> str | None:
    """What is at `data`, in words; None if it has no masks."""
    layout = _layout(Path(data).expanduser())
    return f"images with masks in {layout}'s layout" if layout else describe_masks(data)


def open_label_maps(data: str, ignore: int = IGNORE) -> ImageMasks:
    """Open a data set in one of these layouts, or a plain folder.

    Args:
        ignore: as `open_masks`; CamVid's is 11 in any case.

    Raises:
        InputError: no known layout, an image without mask, or fewer than two classes.
    """
    folder = Path(data).expanduser().resolve()
    layout = _layout(folder)
    if layout is None:
        return open_masks(data, ignore=ignore)
    names = read_class_names(folder)
    if layout == "ADE20K":
        names = names or [str(index) for index in range(1, ADE20K_CLASSES + 1)]
        splits = [
            pair_masks(folder / "images" / split, folder / "annotations" / split, kind=ShiftedMasks)
            for split in ("training", "validation")
        ]
        held_out = "images/validation/ of the folder"
    elif layout == "VOC":
        names = names or VOC_NAMES
        splits = [_listed(folder, split) for split in ("train", "val")]
        held_out = "ImageSets/Segmentation/val.txt of the folder"
    else:
        names = names or CAMVID_NAMES
        suffix = "_labels" if (folder / "train_labels").is_dir() else "annot"
        splits = [
            pair_masks(folder / split, folder / f"{split}{suffix}", endings=("", "_L"))
            for split in ("train", "val")
        ]
        held_out = "val/ of the folder"
    check_classes(names, str(folder))
    for samples in splits:
        samples.classes = len(names)
        samples.ignore = len(names) if layout == "CamVid" else ignore
    return ImageMasks(str(folder), tuple(names), *splits, held_out)


def _layout(folder: Path) -> str | None:
    if (folder / "SegmentationClass").is_dir() and (folder / "JPEGImages").is_dir():
        return "VOC"
    if (folder / "annotations" / "training").is_dir() and (folder / "images" / "training").is_dir():
        return "ADE20K"
    for suffix in ("_labels", "annot"):
        if all((folder / f"{split}{end}").is_dir() for split in ("train", "val")
               for end in ("", suffix)):  # fmt: skip
            return "CamVid"
    return None


def _listed(folder: Path, split: str) -> MaskSamples:
    path = folder / "ImageSets" / "Segmentation" / f"{split}.txt"
    try:
        names: Sequence[str] = path.read_text().split()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    if not names:
        raise InputError(f"{path} lists no images")
    images, masks = [f"{name}.jpg" for name in names], [f"{name}.png" for name in names]
    return MaskSamples(folder / "JPEGImages", folder / "SegmentationClass", images, masks)
