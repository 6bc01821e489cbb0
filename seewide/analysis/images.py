"""Images of folders, read one at a time."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor

from seewide.data.images import SUFFIXES, list_image_files, read_image
from seewide.errors import InputError


def list_images(folder: str | os.PathLike, count: int | None = None) -> list[Path]:
    """Sorted paths of the images in a folder and its subfolders.

    Args:
        folder: where to search.
        count: number of images to take, evenly spaced so that all subfolders are represented;
            default: all.

    Raises:
        InputError: no such folder, no image in it, or fewer than `count`.
    """
    folder = Path(folder)
    if not os.path.isdir(folder):
        raise InputError(f"there is no folder {folder}")
    paths = [folder / name for name in list_image_files(folder)]
    if not paths:
        raise InputError(f"{folder} contains no image ({', '.join(sorted(SUFFIXES))})")
    if count is None:
        return paths
    if not 1 <= count <= len(paths):
        raise InputError(f"{folder} contains {len(paths)} images, got count={count}")
    return [paths[index * len(paths) // count] for index in range(count)]


def load_image(path: str | os.PathLike) -> Image.Image:
    """The image in RGB, see `seewide.data.images.read_image`.

    Raises:
        InputError: the file cannot be read; the message names it.
    """
    return read_image(Path(path))


def stream_images(
    paths: Sequence[Path],
    transform: Callable[[Image.Image], Tensor],
    progress: Callable[[], object] = lambda: None,
) -> Iterator[Tensor]:
    """Transformed images, read one at a time.

    Args:
        paths: of the images.
        transform: RGB image -> (3, H, W), see `AnalyzedModel.resizing`.
        progress: called after each image has been read.
    """
    for path in paths:
        image = transform(load_image(path))
        progress()
        yield image
