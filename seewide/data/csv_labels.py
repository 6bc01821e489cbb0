"""Images with their labels in a CSV file.

    image,label            image,label,split
    cats/0.jpg,cat         0.jpg,beach;sunset,train
    dogs/7.jpg,dog         1.jpg,forest,val

Image paths are relative to the file's folder. Images of several classes (multi-label) have their
names separated by semicolons. The column `split` is optional.
"""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .folders import HELD_OUT_NAMES, file_samples
from .images import ImageSamples, read_image
from .labels import check_classes, index_labels, read_class_names, shortened
from .samples import Sample, Samples

IMAGE_COLUMNS = ("image", "filename", "file", "path")
LABEL_COLUMNS = ("label", "labels", "class")
SEPARATOR = ";"


class MultiLabelSamples(ImageSamples):
    """`{"image": RGB PIL image, "label": (K,) float32, 1 for the classes of the image}`."""

    def __init__(self, base: ImageSamples, targets_NK: np.ndarray) -> None:
        super().__init__(base.images, np.zeros(len(base)), base.names(), sizes=base.sizes)
        # One class index a sample, which hold-outs and fingerprints take: the set of its classes.
        self.labels = np.unique(targets_NK, axis=0, return_inverse=True)[1].reshape(-1)
        self.targets_NK = targets_NK

    def __getitem__(self, index: int) -> Sample:
        target_K = self.targets_NK[index].astype(np.float32)
        return {"image": read_image(self.images[index]), "label": target_K}


def is_csv(data: str) -> bool:
    """Whether `--data` means a CSV or TSV file."""
    return data.lower().endswith((".csv", ".tsv"))


def has_label_columns(data: str) -> bool:
    """Whether the file exists and its header names images and labels."""
    try:
        with open(data, newline="", encoding="utf-8-sig", errors="replace") as file:
            header = file.readline()
    except OSError:
        return False
    fields = set(re.split(r"[,\t]", header.strip().replace('"', "")))
    return bool(fields & set(IMAGE_COLUMNS)) and bool(fields & set(LABEL_COLUMNS))


def open_csv(
    data: str, *, multi_label: bool = False
) -> tuple[str, tuple[str, ...], Samples, Samples | None, str]:
    """Open a file as described above.

    The classes are the lines of a `classes.txt` beside it; without, those of the training samples,
    sorted, or the numbers from 0 on if labels are numbers.

    Args:
        multi_label: labels are sets of classes, and samples have vectors of zeros and ones.

    Returns:
        The file's path, class names, samples to train on, held-out samples or None, and in words
        where these come from.

    Raises:
        InputError: no such file, columns that are missing, rows without an image or label, several
            labels of an image without `multi_label`, or classes that differ between the splits.
    """
    file = Path(data).absolute()
    rows = _rows(file)
    train = [row for row in rows if row[2] in ("", "train")]
    val_name = next((n for n in HELD_OUT_NAMES if any(row[2] == n for row in rows)), None)
    val = [row for row in rows if row[2] == val_name]
    if not train:
        raise InputError(f"{file} has no row to train on")
    make = _multi_label if multi_label else _single_label
    class_names, parts = make(file, train, val or None)
    words = f"the rows of split {val_name}" if val else ""
    return str(file), class_names, *parts, words


Row = tuple[str, str, str]  # image, label, split


def _rows(file: Path) -> list[Row]:
    try:
        with open(file, encoding="utf-8-sig", errors="surrogateescape", newline="") as content:
            dialect = csv.excel_tab if file.suffix.lower() == ".tsv" else csv.excel
            reader = csv.DictReader(content, dialect=dialect, strict=True)
            fields = [name.strip().lower() for name in reader.fieldnames or ()]
            reader.fieldnames = fields
            image, label = (
                _column(file, fields, allowed) for allowed in (IMAGE_COLUMNS, LABEL_COLUMNS)
            )
            rows = []
            for row in reader:
                name, value = (str(row[column] or "").strip() for column in (image, label))
                if not name or not value:
                    raise InputError(
                        f"{file} has no {image} or no {label} in line {reader.line_num}"
                    )
                rows.append((name, value, str(row.get("split") or "").strip().lower()))
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    except csv.Error as error:
        raise InputError(f"{file} is not a CSV file: {error}") from None
    if not rows:
        raise InputError(f"{file} has no rows")
    return rows


def _column(file: Path, fields: Sequence[str], allowed: Sequence[str]) -> str:
    found = next((name for name in allowed if name in fields), None)
    if found is None:
        raise InputError(
            f"{file} has no column {' or '.join(allowed)}; its columns are "
            f"{shortened(fields) or 'none'}"
        )
    return found


def _single_label(
    file: Path, train: list[Row], val: list[Row] | None
) -> tuple[tuple[str, ...], list[Samples | None]]:
    for name, label, _ in [*train, *(val or ())]:
        if SEPARATOR in label:
            raise InputError(
                f"{file} gives {name} several labels ({label}), which needs a multi-label task"
            )
    class_names, *labels = index_labels(
        _labels(train), None if val is None else _labels(val), str(file),
        read_class_names(file.parent),
    )  # fmt: skip
    parts = [
        None if rows is None else _samples(file, rows, of_rows)
        for rows, of_rows in zip((train, val), labels, strict=True)
    ]
    return class_names, parts


def _multi_label(
    file: Path, train: list[Row], val: list[Row] | None
) -> tuple[tuple[str, ...], list[Samples | None]]:
    names = read_class_names(file.parent)
    names = names or sorted({part for _, label, _ in train for part in _parts(label)})
    check_classes(names, str(file))
    position = {name: index for index, name in enumerate(names)}
    parts: list[Samples | None] = []
    for rows in (train, val):
        if rows is None:
            parts.append(None)
            continue
        targets_NK = np.zeros((len(rows), len(names)), np.uint8)
        for index, (_, label, _) in enumerate(rows):
            for part in _parts(label):
                if part not in position:
                    raise InputError(
                        f"{file} has a class {part} that the training classes do not have: "
                        f"{shortened(names)}"
                    )
                targets_NK[index, position[part]] = 1
        base = _samples(file, rows, np.zeros(len(rows), np.int64))
        parts.append(MultiLabelSamples(base, targets_NK))
    return tuple(names), parts


def _labels(rows: list[Row]) -> np.ndarray:
    texts = [label for _, label, _ in rows]
    numbers = all(text.isascii() and text.isdigit() and len(text) < 10 for text in texts)
    return np.array(texts, np.int64) if numbers else np.array(texts)


def _parts(label: str) -> list[str]:
    return [part.strip() for part in label.split(SEPARATOR) if part.strip()]


def _samples(file: Path, rows: list[Row], labels: np.ndarray) -> ImageSamples:
    return file_samples(file.parent, [os.path.normpath(name) for name, *_ in rows], labels)
