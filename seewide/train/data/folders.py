"""A folder with one folder of pictures per class, as torchvision's ImageFolder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewide.errors import InputError
from seewide.train.data.picture import SUFFIXES
from seewide.train.data.split import Names, Split, Unsplit, shortened


@dataclass(frozen=True)
class Files(Sequence[Path]):
    """Files of a folder, by their names in it."""

    folder: Path
    names: Names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Path:
        return self.folder / self.names[index]


def open_folder(folder: Path) -> Unsplit:
    """`folder/train/CLASS` and `folder/val/CLASS`, or `folder/CLASS`.

    Raises:
        InputError: no pictures, one class, classes that differ between the two.
    """
    if (folder / "train").is_dir() != (folder / "val").is_dir():
        have, lack = ("train", "val") if (folder / "train").is_dir() else ("val", "train")
        raise InputError(f"{folder} has {have}/ but no {lack}/")
    if (folder / "train").is_dir():
        class_names = classes_of(folder / "train")
        train = list_folder(folder / "train", class_names)
        val = list_folder(folder / "val", class_names)
        return Unsplit(str(folder), class_names, train, val, "train/ and val/ of the folder")
    class_names = classes_of(folder)
    return Unsplit(str(folder), class_names, list_folder(folder, class_names), None)


def classes_of(folder: Path) -> tuple[str, ...]:
    """The names of the class folders, sorted; at least two."""
    names = sorted(
        entry.name for entry in folder.iterdir() if entry.is_dir() and entry.name[0] != "."
    )
    if not names:
        raise InputError(f"{folder} is empty: it should hold one folder of pictures per class")
    if len(names) == 1:
        raise InputError(f"{folder} holds one class, {names[0]}; telling apart needs two or more")
    return tuple(names)


def list_folder(folder: Path, class_names: Sequence[str]) -> Split:
    """All pictures of the class folders, whose names must be among `class_names`."""
    strange = [name for name in classes_of(folder) if name not in class_names]
    if strange:
        raise InputError(
            f"{folder} has a class {strange[0]} that the training classes do not have: "
            f"{shortened(class_names)}"
        )
    names: list[str] = []
    counts: list[int] = []
    for name in class_names:
        found = [p for p in sorted((folder / name).rglob("*")) if p.suffix.lower() in SUFFIXES]
        if not found and (folder / name).is_dir():
            raise InputError(f"{folder / name} holds no pictures ({', '.join(SUFFIXES)})")
        names += [str(path.relative_to(folder)) for path in found]
        counts.append(len(found))
    return Split(Files(folder, Names.of(names)), np.repeat(np.arange(len(counts)), counts))
