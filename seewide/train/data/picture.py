"""Reading one picture, and the sentence for one that cannot be read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from PIL import Image, UnidentifiedImageError

from seewide.errors import InputError

if TYPE_CHECKING:
    from seewide.train.data.split import Split

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".tif", ".tiff")
# Beyond this, reading everything twice costs more than a late error; it takes about a minute.
CHECK_AT_MOST = 100_000

Picture = Path | Image.Image


def read_picture(picture: Picture) -> Image.Image:
    """The decoded picture in RGB.

    Raises:
        InputError: the file is missing, truncated or no picture; the sentence names it.
    """
    if isinstance(picture, Image.Image):
        return picture
    try:
        with Image.open(picture) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise _broken(picture, error) from None


def check_pictures(split: Split, step: Callable[[], object] = lambda: None) -> None:
    """Decode every file once, small; raise read_picture's InputError for the first bad one."""
    for picture in split.pictures:
        if isinstance(picture, Path):
            try:
                with Image.open(picture) as image:
                    image.draft("RGB", (1, 1))  # JPEG: all bytes, an eighth of the pixels
                    image.load()
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                raise _broken(picture, error) from None
        step()


def _broken(path: Path, error: Exception) -> InputError:
    if not Path(path).is_file():
        return InputError(f"there is no picture {path}")
    if isinstance(error, UnidentifiedImageError):
        return InputError(f"{path} is no picture that can be read")
    return InputError(f"{path} is damaged: {error}")
