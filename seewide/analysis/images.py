"""Pictures from folders, one at a time: nothing is listed twice, nothing is kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor
from torchvision.transforms.functional import InterpolationMode, normalize, pil_to_tensor, resize

from seewide.data.images import SUFFIXES, list_image_files, read_image
from seewide.errors import InputError


def list_pictures(folder: str | os.PathLike, count: int | None = None) -> list[Path]:
    """Paths of the pictures in a folder and the folders in it, sorted.

    With `count`, that many at even distances, so that folders of classes all have their share.

    Raises:
        InputError: no such folder, no picture in it, or fewer than `count`.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}")
    paths = [folder / name for name in list_image_files(folder)]
    if not paths:
        raise InputError(f"{folder} holds no picture ({', '.join(sorted(SUFFIXES))})")
    if count is None:
        return paths
    if not 1 <= count <= len(paths):
        raise InputError(f"{folder} holds {len(paths)} pictures, asked for were {count}")
    return [paths[index * len(paths) // count] for index in range(count)]


def open_picture(path: str | os.PathLike) -> Image.Image:
    """The image in RGB, see `seewide.data.images.read_image`.

    Raises:
        InputError: it cannot be read; the sentence names it.
    """
    return read_image(Path(path))


def normalized(
    picture: Image.Image,
    side: int | None = None,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
) -> Tensor:
    """(3, H, W): 0..1, minus mean, over std; with `side`, resized to a square of that side."""
    if side is not None:
        picture = resize(picture, [side, side], InterpolationMode.BICUBIC)
    return normalize(pil_to_tensor(picture) / 255, list(mean), list(std))


def stream(
    paths: Sequence[Path],
    side: int | None = None,
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN,
    std: Sequence[float] = IMAGENET_DEFAULT_STD,
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Tensor]:
    """`normalized` pictures, read one at a time; `progress` is called as each has been read."""
    for path in paths:
        picture = normalized(open_picture(path), side, mean, std)
        progress()
        yield picture
