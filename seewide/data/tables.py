"""Images in tables of Hugging Face `datasets`: from the hub, or in parquet or arrow files."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl

import numpy as np

from seewide.errors import InputError, require, unknown

from .images import ImageSamples, StoredImage
from .labels import index_labels, split_by_name
from .samples import Names, Samples

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

HUB = "hf:"
SAVED = ("dataset_dict.json", "state.json")  # what save_to_disk leaves
VALIDATION = ("validation", "valid", "val", "test")
IMAGE_NAMES, LABEL_NAMES = ("image", "img", "picture", "jpg"), ("label", "labels", "cls", "class")


@dataclass(frozen=True)
class Row(StoredImage):
    """An image in a table."""

    table: Dataset
    column: str
    index: int
    name: str

    def __str__(self) -> str:
        return f"{self.name}, row {self.index}"

    def open(self) -> BinaryIO:
        cell = self.table[self.index][self.column]
        if isinstance(cell, dict):  # bytes, or the path of a file beside the table
            if not cell["bytes"] and cell["path"]:
                return open(cell["path"], "rb")
            cell = cell["bytes"]
        if not cell:
            raise OSError("the row is empty")
        return BytesIO(cell)


@dataclass(frozen=True)
class Rows(Sequence[Row]):
    """The images of a table, not decoded."""

    table: Dataset
    column: str
    name: str

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> Row:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return Row(self.table, self.column, index, self.name)


def is_table(data: str) -> bool:
    """Whether `--data` means a table: `hf:...`, or a folder or file that `datasets` writes."""
    folder = Path(data)
    saved = any(os.path.isfile(folder / name) for name in SAVED)
    return data.startswith(HUB) or saved or bool(_files(folder))


def open_table(data: str) -> tuple[str, tuple[str, ...], Samples, Samples | None, str]:
    """`hf:NAME[:TRAIN[:VAL]][?image=COLUMN&label=COLUMN]`, or a folder of `datasets`.

    NAME is a data set of the hub, or a folder. Splits that are not named are train, and the first
    that exists of validation, valid, val and test. Columns that are not named are the one of type
    Image and the one of type ClassLabel.

    Returns:
        The name that opens the same table again, class names, samples to train on, held-out samples
        or None, and in words where these come from.

    Raises:
        InputError: `datasets` is not installed; no such name, split or column; or classes that
            differ between the splits.
    """
    library = require("datasets", extra="data")
    name, _, query = data.removeprefix(HUB).partition("?")
    name, *wanted = name.split(":")
    columns = dict(parse_qsl(query))
    if strange := set(columns) - {"image", "label"}:
        raise unknown("option of hf:", strange.pop(), ("image", "label"))
    if len(wanted) > 2:
        raise InputError(
            f"{data} names {len(wanted)} splits; at most one to train on and one held out"
        )
    folder = Path(os.path.expanduser(name))
    if folder.exists():
        folder = folder.resolve()
        full = HUB + ":".join([str(folder), *wanted]) + ("?" + query if query else "")
        full = full if data.startswith(HUB) else str(folder)
        splits = _on_disk(library, folder)
    else:
        full, splits = data, _on_hub(library, name)
    train_name = wanted[0] if wanted else "train" if "train" in splits else next(iter(splits))
    val_name = next(iter(wanted[1:]), None)
    if not wanted:
        val_name = next((n for n in VALIDATION if n in splits and n != train_name), None)
    for wish in filter(None, (train_name, val_name)):
        if wish not in splits:
            raise unknown("split", wish, splits)
    tables = splits[train_name], splits[val_name] if val_name else None
    image = _column(tables[0], "image", columns.get("image"))
    label = _column(tables[0], "label", columns.get("label"))
    class_names, others = (_class_names(library, table, label) for table in tables)
    if class_names and others and class_names != others:
        raise InputError(f"{data}: {train_name} and {val_name} have different lists of classes")
    labels = [None if t is None else _labels(t, label) for t in tables]
    class_names, *labels = index_labels(*labels, full, class_names)
    parts = [
        None if table is None else _samples(library, table, image, f"{name}:{part}", part, ids)
        for table, part, ids in zip(tables, (train_name, val_name), labels, strict=True)
    ]
    return full, class_names, *parts, f"its split {val_name}" if val_name else ""


def _on_hub(library: Any, name: str) -> DatasetDict:
    try:
        return library.load_dataset(name)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"there is no data set {name} on the hub or on disk: {reason}") from None


def _on_disk(library: Any, folder: Path) -> dict[str, Dataset]:
    try:
        return _read(library, folder)
    except InputError:
        raise
    except Exception as error:  # of datasets, pyarrow or whatever they came across
        reason = str(error).partition("\n")[0]
        raise InputError(f"{folder} cannot be read as a table: {reason}") from None


def _read(library: Any, folder: Path) -> dict[str, Dataset]:
    with _silenced("datasets"):
        if any((folder / name).is_file() for name in SAVED):
            found = library.load_from_disk(str(folder))
            return found if isinstance(found, dict) else {"train": found}
        train, val = split_by_name(_files(folder))
        named = {"train": train, "validation": val}
        return {part: _of_files(library, files) for part, files in named.items() if files}


@contextlib.contextmanager
def _silenced(name: str) -> Iterator[None]:
    """Without the log of a library, whose errors become one sentence of ours."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(level)


def _files(folder: Path) -> list[Path]:
    if folder.suffix in (".parquet", ".arrow") and os.path.isfile(folder):
        return [folder]
    if not os.path.isdir(folder):
        return []
    places = (folder.glob(f"{place}*{end}") for place in ("", "data/") for end in _ENDS)
    return next((found for found in map(sorted, places) if found), [])


_ENDS = (".parquet", ".arrow")


def _of_files(library: Any, files: list[Path]) -> Dataset:
    if files[0].suffix == ".parquet":  # unpacked into the cache of `datasets`, once
        return library.Dataset.from_parquet([str(file) for file in files])
    return library.concatenate_datasets([library.Dataset.from_file(str(f)) for f in files])


def _column(table: Dataset, what: str, wanted: str | None) -> str:
    """The column that is asked for; otherwise by its type, otherwise by its name."""
    if wanted:
        if wanted not in table.features:
            raise unknown(f"{what} column", wanted, table.features)
        return wanted
    kind, names = {"image": ("Image", IMAGE_NAMES), "label": ("ClassLabel", LABEL_NAMES)}[what]
    typed = [name for name, feature in table.features.items() if type(feature).__name__ == kind]
    named = [name for name in names if name in table.features]
    both = [name for name in named if name in typed]
    if found := both or typed or named:
        if len(found) > 1 and not both:
            raise InputError(f"{what} columns are {', '.join(found)}; say ?{what}= which")
        return found[0]
    raise InputError(
        f"no {what} column among {', '.join(table.features)}; name it: hf:...?{what}=COLUMN"
    )


def _class_names(library: Any, table: Dataset | None, column: str) -> list[str]:
    """Empty where labels are plain numbers or text."""
    feature = table and table.features.get(column)
    return feature.names if isinstance(feature, library.ClassLabel) else []


def _labels(table: Dataset, column: str) -> np.ndarray:
    if column not in table.features:
        raise InputError(f"the held-out split has no column {column}: {', '.join(table.features)}")
    labels = np.asarray(table.with_format("numpy")[column])
    return labels if np.issubdtype(labels.dtype, np.integer) else labels.astype(str)


def _samples(
    library: Any, table: Dataset, column: str, name: str, part: str, labels: np.ndarray
) -> ImageSamples:
    table = table.select_columns([column])
    if type(table.features[column]).__name__ == "Image":
        table = table.cast_column(column, library.Image(decode=False))
    names = [f"{part}/{index}" for index in range(len(table))]
    rows = Rows(table, column, name)
    return ImageSamples(rows, labels, Names.of(names), sizes=lambda: _sizes(table, column))


def _sizes(table: Dataset, column: str) -> np.ndarray | None:
    """(N,) bytes of the cells; None where they are paths."""
    import pyarrow
    from pyarrow import compute

    cells = table.with_format("arrow")[:][column]
    try:
        if pyarrow.types.is_struct(cells.type):
            cells = compute.struct_field(cells, "bytes")
        return compute.fill_null(compute.binary_length(cells), 0).to_numpy().astype(np.int64)
    except (pyarrow.ArrowException, KeyError, TypeError):
        return None
