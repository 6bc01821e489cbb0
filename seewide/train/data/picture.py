"""Reading one picture, and the sentence for one that cannot be read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeVar

from PIL import Image, UnidentifiedImageError

from seewide.errors import InputError

if TYPE_CHECKING:
    from seewide.train.data.split import Split

T = TypeVar("T")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
# Beyond this, reading everything twice costs more than a late error; it takes about a minute.
CHECK_AT_MOST = 100_000


class Stored(ABC):
    """A picture inside a larger file. Its text names it."""

    @abstractmethod
    def open(self) -> BinaryIO:
        """The bytes of the picture's own file; an OSError if they are not there."""


Picture = Path | Stored | Image.Image


def read_picture(picture: Picture) -> Image.Image:
    """The decoded picture in RGB.

    Raises:
        InputError: the file is missing, truncated or no picture; the sentence names it.
    """
    if isinstance(picture, Image.Image):
        return picture
    return _opened(picture, _decode)


def check_pictures(split: Split, step: Callable[[], object] = lambda: None) -> list[str]:
    """Decode every picture once, small; read_picture's sentence for each that cannot be read."""
    broken = []
    for picture in split.pictures:
        if not isinstance(picture, Image.Image):
            try:
                _opened(picture, _decode_small)
            except InputError as error:
                broken.append(str(error))
        step()
    return broken


def _decode(image: Image.Image) -> Image.Image:
    image.load()
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy


def _decode_small(image: Image.Image) -> None:
    image.draft("RGB", (1, 1))  # JPEG: all bytes, an eighth of the pixels
    image.load()


def _opened(picture: Path | Stored, use: Callable[[Image.Image], T]) -> T:
    try:
        with Image.open(picture if isinstance(picture, Path) else picture.open()) as image:
            return use(image)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(picture, Path) and not picture.is_file():
            raise InputError(f"there is no picture {picture}") from None
        if isinstance(error, UnidentifiedImageError):
            raise InputError(f"{picture} is no picture that can be read") from None
        raise InputError(f"{picture} is damaged: {error}") from None
