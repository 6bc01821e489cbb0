"""Reading one image, and the sentence for one that cannot be read."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO, TypeVar

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from seewide.errors import InputError

from .samples import Sample, Samples

T = TypeVar("T")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
# What Pillow may decode, whatever the file is called. Others (EPS, PDF, WMF ...) start programs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "TIFF", "GIF")
ORIENTATION = 0x0112  # the EXIF tag


class StoredImage(ABC):
    """An image inside a larger file. Its text names it in messages."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """The bytes of the image as a file; raises OSError if they are not there."""


ImageSource = Path | StoredImage | Image.Image


class ImageSamples(Samples):
    """`{"image": RGB PIL image, "label": class index}`.

    Args:
        images: where each image lies, or images in memory.
        labels: (N,) indices of their classes.
        names: what identifies each image; default: the text of its source.
        shards, sizes: see `Samples`.
    """

    def __init__(
        self,
        images: Sequence[ImageSource],
        labels: Sequence[int] | np.ndarray,
        names: Sequence[str] | None = None,
        shards: np.ndarray | None = None,
        sizes: Callable[[], np.ndarray | None] = lambda: None,
    ) -> None:
        self.images = images
        self.labels = np.asarray(labels, dtype=np.int64)
        self.shards = shards
        self._names, self._sizes = names, sizes

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        return {"image": read_image(self.images[index]), "label": int(self.labels[index])}

    def verify(self, index: int) -> None:
        verify_image(self.images[index])

    def names(self) -> Iterable[str]:
        return map(str, self.images) if self._names is None else self._names

    def sizes(self) -> np.ndarray | None:
        return self._sizes()


def read_image(source: ImageSource) -> Image.Image:
    """The decoded image in RGB, upright by its EXIF orientation.

    Images of 16 bits are scaled to 8, images of floating-point numbers in 0..1 to 0..255.

    Raises:
        InputError: the file is missing, truncated, not an image, or has values outside these
            ranges; the sentence names it.
    """
    if isinstance(source, Image.Image):
        return source
    return open_image(source, _decode)


def verify_image(source: ImageSource) -> None:
    """Decode an image at the least cost: all bytes of a JPEG, but an eighth of its resolution.

    Raises:
        InputError: as `read_image`.
    """
    if not isinstance(source, Image.Image):
        open_image(source, _decode_small)


def list_image_files(folder: str | os.PathLike) -> list[str]:
    """Image files in a folder and the folders in it, relative to it and sorted.

    Hidden files and folders are left out, among them the `._0.png` that macOS writes beside `0.png`
    on foreign disks and in archives.
    """
    found = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not is_hidden(name)]
        inner = os.path.relpath(place, folder)
        found += [
            name if inner == os.curdir else os.path.join(inner, name)
            for name in files
            if name.lower().endswith(SUFFIXES) and not is_hidden(name)
        ]
    return sorted(found, key=lambda name: name.split(os.sep))


def is_hidden(name: str) -> bool:
    """Whether a file or folder name is hidden or made by an archiver of macOS."""
    return name.startswith(".") or name == "__MACOSX"


def _decode(image: Image.Image) -> Image.Image:
    image.load()
    image = _upright(image)
    if image.mode[0] in "IF":
        return _to_8_bits(image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _decode_small(image: Image.Image) -> None:
    image.draft("RGB", (1, 1))
    image.load()
    if image.mode[0] in "IF":
        _to_8_bits(image)


def _upright(image: Image.Image) -> Image.Image:
    try:
        if image.getexif().get(ORIENTATION, 1) == 1:
            return image
        return ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data must not cost the image
        return image


def _to_8_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits (modes I;16 and, of PGM, I) or of floating-point numbers (mode F)."""
    grey_HW = np.asarray(image)
    most = 1 if image.mode == "F" else 65535
    low, high = grey_HW.min(), grey_HW.max()
    if not (low >= 0 and high <= most):  # also if one is NaN
        raise ValueError(f"its values are in {low:g}..{high:g}, not in 0..{most}")
    return Image.fromarray(np.rint(grey_HW * (255 / most)).astype(np.uint8))


def open_image(source: Path | StoredImage, use: Callable[[Image.Image], T]) -> T:
    """`use(image)` of an image that is opened, not yet decoded, and closed afterwards.

    Raises:
        InputError: it cannot be opened, or `use` fails; the sentence names the image.
    """
    try:
        file = source if isinstance(source, Path) else source.open()
        with Image.open(file, formats=FORMATS) as image:
            return use(image)
    except Exception as error:  # Pillow's decoders raise whatever they come across
        if isinstance(source, Path) and not os.path.isfile(source):
            raise InputError(f"there is no image {source}") from None
        if isinstance(error, UnidentifiedImageError):
            raise InputError(f"{source} is not an image that can be read") from None
        raise InputError(f"{source} is damaged: {error}") from None
