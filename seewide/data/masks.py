"""Images with the class of every pixel: semantic segmentation.

    data/images/train/0.jpg    data/masks/train/0.png      splits inside, as CamVid here
    data/train/images/0.jpg    data/train/masks/0.png      splits outside
    data/images/0.jpg          data/masks/0.png            one split; 20% are held out
    data/classes.txt           one name per line, in the order of the mask values

A mask is an 8-bit image of one channel, or with a palette as those of Pascal VOC, whose values are
class indices. Shape: H x W pixels.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from seewide.errors import InputError

from .folders import HELD_OUT_NAMES
from .images import SUFFIXES, list_image_files, open_image, read_image
from .labels import ANY_HELD_OUT_IN_WORDS, check_classes, hold_out_any, read_class_names
from .samples import Names, Sample, Samples

IGNORE = 255  # of pixels that neither losses nor scores count
# Without classes.txt, the classes are found by reading all masks, up to this many.
MOST_MASKS_TO_READ = 20_000


@dataclass(frozen=True)
class ImageMasks:
    """Images and masks.

    Attributes:
        name: opens the same data again from any working directory.
        class_names: K names, in the order of the mask values.
        train, val: samples as `MaskSamples` has them; the values of masks are 0..K-1 and IGNORE.
        held_out: in words, where `val` comes from.
    """

    name: str
    class_names: tuple[str, ...]
    train: Samples
    val: Samples
    held_out: str

    @property
    def short(self) -> str:
        """A name for files and tables."""
        return Path(self.name).name or "data"


class MaskSamples(Samples):
    """`{"image": RGB PIL image, "mask": PIL image of mode L, "name": file name of the image}`.

    Args:
        images, masks: folders.
        image_names, mask_names: files in them, in pairs.
        classes: number of classes; 0: mask values are not checked.
        ignore: mask value that becomes IGNORE.
    """

    def __init__(
        self,
        images: Path,
        masks: Path,
        image_names: Sequence[str],
        mask_names: Sequence[str],
        classes: int = 0,
        ignore: int = IGNORE,
    ) -> None:
        self.images, self.masks = images, masks
        self.image_names, self.mask_names = Names.of(image_names), Names.of(mask_names)
        self.classes, self.ignore = classes, ignore

    def __len__(self) -> int:
        return len(self.image_names)

    def __getitem__(self, index: int) -> Sample:
        image = read_image(self.images / self.image_names[index])
        path, mask_HW = self.masks / self.mask_names[index], self.mask_values(index)
        height, width = mask_HW.shape
        if image.size != (width, height):
            raise InputError(
                f"{path} is {width} x {height} pixels, its image {self.image_names[index]} is "
                f"{image.width} x {image.height}"
            )
        ignored_HW = mask_HW == self.ignore
        wrong_HW = (mask_HW >= self.classes) & ~ignored_HW & (mask_HW != IGNORE)
        if self.classes and wrong_HW.any():
            raise InputError(
                f"{path} has a value {mask_HW[wrong_HW][0]}; classes are 0 to {self.classes - 1}, "
                f"and {self.ignore} is ignored"
            )
        mask_HW = np.where(ignored_HW, np.uint8(IGNORE), mask_HW)
        name = self.image_names[index]
        return {"image": image, "mask": Image.fromarray(mask_HW), "name": name}

    def mask_values(self, index: int) -> np.ndarray:
        """(H, W) uint8, as stored.

        Raises:
            InputError: the mask cannot be read, or has several channels or 16 bits.
        """
        return open_image(self.masks / self.mask_names[index], _values)

    def names(self) -> Iterable[str]:
        return self.image_names

    def sizes(self) -> np.ndarray:
        pairs = zip(self.image_names, self.mask_names, strict=True)
        found = [_size(self.images / image) + _size(self.masks / mask) for image, mask in pairs]
        return np.array(found, np.int64)


def open_masks(data: str | Path, *, ignore: int = IGNORE) -> ImageMasks:
    """Open a folder as described above.

    Without `classes.txt` or `classes.json`, the classes are the numbers from 0 to the largest value
    in the masks to train on.

    Args:
        ignore: mask value of pixels that belong to no class, in addition to IGNORE. In the CamVid
            subset of SegNet it is 11.

    Raises:
        InputError: no such folder, images without masks, fewer than two classes or images.
    """
    if not 0 <= ignore <= IGNORE:
        raise InputError(f"the ignored mask value must be in 0..{IGNORE}, got {ignore}")
    place = os.path.expanduser(data)
    if not os.path.isdir(place):
        raise InputError(f"there is no folder {data}")
    folder = Path(place).resolve()
    parts = _parts(folder)
    if parts is None:
        raise InputError(
            f"{folder} has no images/ and masks/, neither itself nor in train/; masks are PNG "
            "files named as their images"
        )
    train = pair_masks(*parts[0], ignore)
    names = read_class_names(folder) or _numbered(train, folder)
    check_classes(names, str(folder))
    if len(names) > IGNORE:
        raise InputError(
            f"{folder} has {len(names)} classes; masks of 8 bits have at most {IGNORE}"
        )
    if len(names) - 1 == ignore:  # the list names the ignored value too, as the last
        names = names[:-1]
    train.classes = len(names)
    if len(parts) == 1:
        train, val = hold_out_any(train)
        return ImageMasks(str(folder), tuple(names), train, val, ANY_HELD_OUT_IN_WORDS)
    val = pair_masks(*parts[1], ignore)
    val.classes = len(names)
    words = f"{parts[1][0].relative_to(folder)}/ of the folder"
    return ImageMasks(str(folder), tuple(names), train, val, words)


def describe_masks(data: str) -> str | None:
    """`images with masks` if that is what there is at `data`, otherwise None."""
    place = os.path.expanduser(data)
    try:
        found = os.path.isdir(place) and _parts(Path(place)) is not None
    except InputError:
        return None
    return "images with masks" if found else None


def palette() -> list[int]:
    """256 colors as Pascal VOC has them, red, green, blue; IGNORE is light grey."""
    return [value for index in range(256) for value in _voc_color(index)]


def _voc_color(index: int) -> tuple[int, int, int]:
    """The bits of the index, dealt out to red, green and blue from their highest bits down."""
    red = green = blue = 0
    for bit in range(8):
        red |= (index >> 3 * bit & 1) << 7 - bit
        green |= (index >> 3 * bit + 1 & 1) << 7 - bit
        blue |= (index >> 3 * bit + 2 & 1) << 7 - bit
    return red, green, blue


def _parts(folder: Path) -> list[tuple[Path, Path]] | None:
    """(images, masks) folders to train on and, if there are any, held out; None without."""
    outside = (folder / "train").is_dir()

    def pair_of(split: str) -> tuple[Path, Path]:
        if outside:
            return folder / split / "images", folder / split / "masks"
        return folder / "images" / split, folder / "masks" / split

    if all(path.is_dir() for path in pair_of("train")):
        held_out = next((pair_of(n) for n in HELD_OUT_NAMES if pair_of(n)[0].is_dir()), None)
        if held_out is None:
            return [pair_of("train")]
        if not held_out[1].is_dir():
            raise InputError(f"there is no folder {held_out[1]} for the images of {held_out[0]}")
        return [pair_of("train"), held_out]
    pair = folder / "images", folder / "masks"
    return [pair] if all(path.is_dir() for path in pair) else None


def pair_masks(
    images: Path,
    masks: Path,
    ignore: int = IGNORE,
    kind: type[MaskSamples] = MaskSamples,
    endings: Sequence[str] = ("",),
) -> MaskSamples:
    """Every image of a folder with the mask of its name, or of its name and one of `endings`.

    Raises:
        InputError: no images, or an image without a mask.
    """
    image_names = list_image_files(images)
    if not image_names:
        raise InputError(f"{images} holds no images ({', '.join(SUFFIXES)})")
    by_stem = {os.path.splitext(name)[0]: name for name in list_image_files(masks)}
    stems = [os.path.splitext(name)[0] for name in image_names]
    mask_names = [next((by_stem[s + e] for e in endings if s + e in by_stem), "") for s in stems]
    if missing := [index for index, mask in enumerate(mask_names) if not mask]:
        first = missing[0]
        raise InputError(
            f"{len(missing)} of {len(image_names)} images of {images} have no mask; the first is "
            f"{image_names[first]}, whose mask would be {masks / stems[first]}.png"
        )
    return kind(images, masks, image_names, mask_names, ignore=ignore)


def _numbered(samples: MaskSamples, folder: Path) -> list[str]:
    """The numbers from 0 to the largest mask value that is not ignored."""
    if len(samples) > MOST_MASKS_TO_READ:
        raise InputError(f"{folder} has {len(samples)} masks and no classes.txt; write one")
    seen = np.zeros(256, bool)
    for index in range(len(samples)):
        try:
            seen[samples.mask_values(index)] = True
        except InputError:
            continue  # it is named when the samples are checked
    seen[[samples.ignore, IGNORE]] = False
    return [str(value) for value in range(int(np.flatnonzero(seen).max(initial=-1)) + 1)]


def _values(image: Image.Image) -> np.ndarray:
    if image.mode not in ("L", "P", "1"):
        raise ValueError(f"a mask has one channel of 8 bits or a palette, this is {image.mode}")
    return np.asarray(image, np.uint8)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
