"""Folders with one folder of images per class, as for torchvision's ImageFolder."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .images import SUFFIXES, ImageSamples, is_hidden, list_image_files
from .labels import check_classes, shortened
from .samples import Names

HELD_OUT_NAMES = ("val", "valid", "validation", "test")  # the first there is


@dataclass(frozen=True)
class Files(Sequence[Path]):
    """Files of a folder, by their names in it."""

    folder: Path
    names: Names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:
        return self.folder / self.names[index]

    def sizes(self) -> np.ndarray:
        """(N,) in bytes; 0 for a file that is not there."""
        return np.fromiter(map(_size, self), np.int64, len(self))


def find_split_folders(folder: Path) -> tuple[Path, Path] | None:
    """`train/` and the first of `val/`, `valid/`, `validation/` and `test/`; None without both.

    Raises:
        InputError: `train/` without any of the others, or `val/` or `validation/` without `train/`.
    """
    held_out = next((name for name in HELD_OUT_NAMES if (folder / name).is_dir()), None)
    if (folder / "train").is_dir():
        if held_out is None:
            raise InputError(f"{folder} has train/ but no {', '.join(HELD_OUT_NAMES[:-1])} or test")
        return folder / "train", folder / held_out
    if held_out in ("val", "validation"):
        raise InputError(f"{folder} has {held_out}/ but no train/")
    return None


def class_folders(folder: Path) -> tuple[str, ...]:
    """The names of the class folders, sorted; at least two.

    Raises:
        InputError: fewer.
    """
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and not is_hidden(entry.name)
    )
    if not names:
        raise InputError(f"{folder} is empty: it should hold one folder of images per class")
    check_classes(names, str(folder))
    return tuple(names)


def list_class_folders(folder: Path, class_names: Sequence[str]) -> ImageSamples:
    """All images of the class folders, whose names must be among `class_names`.

    Raises:
        InputError: a folder of another name, or one without images.
    """
    wrong = [name for name in class_folders(folder) if name not in class_names]
    if wrong:
        raise InputError(
            f"{folder} has a class {wrong[0]} that the training classes do not have: "
            f"{shortened(class_names)}"
        )
    names: list[str] = []
    counts: list[int] = []
    for name in class_names:
        found = list_image_files(folder / name)
        if not found and (folder / name).is_dir():
            raise InputError(f"{folder / name} holds no images ({', '.join(SUFFIXES)})")
        names += [os.path.join(name, file) for file in found]
        counts.append(len(found))
    return file_samples(folder, names, np.repeat(np.arange(len(counts)), counts))


def file_samples(folder: Path, names: Sequence[str], labels: np.ndarray) -> ImageSamples:
    """Labelled images by their file names in a folder."""
    files = Files(folder, Names.of(names))
    return ImageSamples(files, labels, files.names, sizes=files.sizes)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0
