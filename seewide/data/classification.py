"""Data for image classification: what `--data` names, and which file of this package opens it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seewide.errors import InputError

from .csv_labels import has_label_columns, is_csv, open_csv
from .digits import open_digits
from .folders import (
    HELD_OUT_NAMES,
    class_folders,
    find_split_folders,
    list_class_folders,
)
from .images import list_image_files
from .labels import ANY_HELD_OUT_IN_WORDS, HELD_OUT_IN_WORDS, hold_out, hold_out_any
from .samples import Samples
from .shards import is_shards, open_shards
from .tables import HUB, is_table, open_table

DIGITS = "digits"
KINDS = (
    "`digits`, a folder with train/ and val/ or with one folder per class, tar shards "
    "(`folder/*.tar`), a table (`hf:NAME`), or a CSV file with columns image and label"
)
KIND_TESTS = (is_csv, is_table, is_shards)  # all else is a folder of folders of images
# Class folders of these names are parts of other kinds of data.
NOT_CLASSES = {"images", "masks", "labels", "annotations", "train", *HELD_OUT_NAMES}


@dataclass(frozen=True)
class ImageClasses:
    """Labelled images.

    Attributes:
        name: opens the same data again from any working directory.
        class_names: K names, in the order of the labels.
        train, val: samples `{"image": RGB PIL image, "label": 0..K-1}`.
        held_out: in words, where `val` comes from.
    """

    name: str
    class_names: tuple[str, ...]
    train: Samples
    val: Samples
    held_out: str

    @property
    def short(self) -> str:
        """A name for files: the last part of `name` that is no pattern."""
        parts = [part for part in Path(self.name).parts if not re.search(r"[*?{\[]", part)]
        return re.sub(r"[^\w.-]+", "-", parts[-1] if parts else self.name).strip("-.") or "data"


def open_classification(data: str | Path, *, multi_label: bool = False) -> ImageClasses:
    """Images to train on and held-out ones; where the data has none, 20% of every class.

    Args:
        data: `digits`; a folder with `train/` and one of `val/`, `valid/`, `validation/` and
            `test/`, or with one folder per class; shards: a tar, a pattern of tars, or a folder of
            them; `hf:NAME` or a folder of `datasets`; a CSV file, see `csv_labels`.
        multi_label: labels are sets of classes; samples have vectors of zeros and ones in place of
            a class index. Only CSV files have such labels.

    Raises:
        InputError: no such data, or whatever its kind cannot read.
    """
    found = _open(data, multi_label)
    if found.val is not None:
        return found
    if multi_label:
        train, val = hold_out_any(found.train)
        return replace(found, train=train, val=val, held_out=ANY_HELD_OUT_IN_WORDS)
    train, val = hold_out(found.train, found.class_names)
    return replace(found, train=train, val=val, held_out=HELD_OUT_IN_WORDS)


def classification_to_evaluate(
    data: str | Path, class_names: Sequence[str], *, trained_on: str | None = None
) -> tuple[Samples, str]:
    """Images to evaluate a model on, labelled by its classes, and in words where they come from.

    The held-out images of the data if it has some. Otherwise all, unless the model was trained on
    this data: then those that were held out.

    Args:
        class_names: of the model. If they are but the numbers from 0 on, as of published weights,
            the classes of a folder are matched by their order.
        trained_on: the `name` of the data that the model was trained on; empty: none that `data`
            could be; None: not known, so it could be `data`.

    Raises:
        InputError: no such data, or other classes.
    """
    folder = Path(os.path.expanduser(data))
    plain = not (str(data) == DIGITS or any(kind(str(folder)) for kind in KIND_TESTS))
    if plain and not os.path.isdir(folder):
        raise InputError(f"there is no folder {data}; --data is {KINDS}")
    if plain and trained_on is not None and str(folder.resolve()) != trained_on:
        folder = next((folder / n for n in HELD_OUT_NAMES if (folder / n).is_dir()), folder)
        names = class_folders(folder)
        if not set(names) <= set(class_names) and _numbered(class_names):
            _same_count(names, class_names, str(folder))
            return list_class_folders(folder, names), f"all of {folder}"
        return list_class_folders(folder, class_names), f"all of {folder}"
    found = _open(data)
    if _numbered(class_names):
        _same_count(found.class_names, class_names, found.name)
    elif tuple(class_names) != found.class_names:
        raise InputError(
            f"the classes of {found.name} ({', '.join(found.class_names[:5])} ...) are not those "
            f"that the model was trained for ({', '.join(class_names[:5])} ...)"
        )
    if found.val is not None:
        return found.val, found.held_out
    if trained_on is None or found.name == trained_on:
        return hold_out(found.train, found.class_names)[1], HELD_OUT_IN_WORDS
    return found.train, f"all of {found.name}"


def describe_classification(data: str) -> str | None:
    """What there is at `data` for image classification, such as `5 folders of images`.

    None if there is nothing of the kind. It lists folders and opens no image.
    """
    if data == DIGITS:
        return "scikit-learn's digits"
    place = os.path.expanduser(data)
    if is_csv(place):
        return "a CSV file of labelled images" if has_label_columns(place) else None
    if is_table(place):
        return f"the table {data}" if data.startswith(HUB) else "a table of images"
    if is_shards(place):
        return "tar shards"
    folder = Path(place)
    if not os.path.isdir(folder):
        return None
    try:
        folders = find_split_folders(folder)
        if folders is None:
            names = class_folders(folder)
        else:
            folder = folders[0]
            names = class_folders(folder)
    except InputError:
        return None
    if NOT_CLASSES & set(names) or not any(list_image_files(folder / name) for name in names):
        return None
    return f"{len(names)} folders of images"


def _open(data: str | Path, multi_label: bool = False) -> ImageClasses:
    """The data as it is stored; `val` is None where no part of it is held out."""
    if is_csv(str(data)):
        return ImageClasses(*open_csv(os.path.expanduser(data), multi_label=multi_label))
    if multi_label:
        raise InputError(f"multi-label data is a CSV file of columns image and label, not {data}")
    if str(data) == DIGITS:
        class_names, samples = open_digits()
        return ImageClasses(DIGITS, class_names, samples, None, "")
    place = os.path.expanduser(data)
    if is_table(place):
        return ImageClasses(*open_table(place))
    if is_shards(place):
        return ImageClasses(*open_shards(place))
    if not os.path.isdir(place):
        raise InputError(f"there is no folder {data}; --data is {KINDS}")
    folder = Path(place).resolve()
    folders = find_split_folders(folder)
    if folders is None:
        class_names = class_folders(folder)
        samples = list_class_folders(folder, class_names)
        return ImageClasses(str(folder), class_names, samples, None, "")
    class_names = class_folders(folders[0])
    train, val = (list_class_folders(part, class_names) for part in folders)
    words = f"{folders[0].name}/ and {folders[1].name}/ of the folder"
    return ImageClasses(str(folder), class_names, train, val, words)


def _numbered(class_names: Sequence[str]) -> bool:
    return list(class_names) == [str(index) for index in range(len(class_names))]


def _same_count(names: Sequence[str], class_names: Sequence[str], where: str) -> None:
    if len(names) != len(class_names):
        raise InputError(f"{where} has {len(names)} classes, the model has {len(class_names)}")
