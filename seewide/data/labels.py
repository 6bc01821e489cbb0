"""Labels, lists of class names, and held-out samples."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .samples import Samples

HOLD_OUT_SEED = 0
HOLD_OUT_SHARE = 0.2
ANY_HELD_OUT_IN_WORDS = f"{HOLD_OUT_SHARE:.0%} held out, seed {HOLD_OUT_SEED}"
HELD_OUT_IN_WORDS = f"{HOLD_OUT_SHARE:.0%} of every class held out, seed {HOLD_OUT_SEED}"
# A number beyond this, and beyond the number of samples, is no label but a mistake.
MOST_CLASSES = 100_000
CLASS_FILES = ("classes.txt", "classes.json")


def hold_out(samples: Samples, class_names: Sequence[str]) -> tuple[Samples, Samples]:
    """The samples to train on, and the same share of every class, at least one sample.

    Drawn with a fixed seed of its own: the seed of a training run does not change it.

    Raises:
        InputError: a class of fewer than two samples.
    """
    labels_N = np.asarray(samples.labels)
    generator = np.random.default_rng(HOLD_OUT_SEED)
    train: list[int] = []
    val: list[int] = []
    for label, name in enumerate(class_names):
        members = generator.permutation(np.flatnonzero(labels_N == label)).tolist()
        if len(members) < 2:
            raise InputError(
                f"class {name} has {len(members)} samples; holding some out needs at least two"
            )
        count = max(1, round(HOLD_OUT_SHARE * len(members)))
        val += members[:count]
        train += members[count:]
    return samples.take(sorted(train)), samples.take(sorted(val))


def hold_out_any(samples: Samples) -> tuple[Samples, Samples]:
    """As `hold_out`, for samples that have no single class: 20% of all, at least one.

    Raises:
        InputError: fewer than two samples.
    """
    if len(samples) < 2:
        raise InputError(f"holding samples out needs at least two, there are {len(samples)}")
    order = np.random.default_rng(HOLD_OUT_SEED).permutation(len(samples))
    count = max(1, round(HOLD_OUT_SHARE * len(samples)))
    return samples.take(np.sort(order[count:])), samples.take(np.sort(order[:count]))


def split_by_name(files: Iterable[Path]) -> tuple[list[Path], list[Path]]:
    """Files to train on and held-out ones, by the words in their names: train; val, validation.

    Without such words all are to train on; beside them, other files, such as tests, are left out.
    """
    files = list(files)
    words = {file: set(re.findall(r"[a-z]+", file.stem.lower())) for file in files}
    train = [file for file in files if "train" in words[file]]
    val = [file for file in files if words[file] & {"val", "valid", "validation"}]
    if val and not train:
        raise InputError(f"{val[0].parent} has {val[0].name} but no train files")
    return (train, val) if train else (files, [])


def index_labels(
    train: np.ndarray, val: np.ndarray | None, where: str, class_names: Sequence[str] = ()
) -> tuple[tuple[str, ...], np.ndarray, np.ndarray | None]:
    """Class names, and the labels as indices of them.

    Args:
        train, val: labels, as numbers or names.
        where: names the data in messages.
        class_names: if they are known.

    Raises:
        InputError: fewer than two classes, or labels that the training classes do not have.
    """
    numbers = np.issubdtype(train.dtype, np.integer)
    names = np.asarray(class_names)
    if not len(names):
        names = _numbered(train, where) if numbers else np.unique(train)
    check_classes(names.tolist(), where)
    found = []
    for labels in (train, val):
        if labels is None:
            found.append(None)
            continue
        if np.issubdtype(labels.dtype, np.integer) and numbers:
            wrong = labels[(labels < 0) | (labels >= len(names))]
            indices = labels
        else:
            position = {name: index for index, name in enumerate(names.tolist())}
            wrong = labels[~np.isin(labels, names)]
            indices = np.array([position.get(name, -1) for name in labels.tolist()])
        if len(wrong):
            raise InputError(
                f"{where} has a class {wrong[0]} that the training classes do not have: "
                f"{shortened(names.tolist())}"
            )
        found.append(indices)
    return tuple(names.tolist()), *found


def check_classes(names: Sequence[str], where: str) -> None:
    """Raise InputError unless there are two or more."""
    if len(names) < 2:
        only = f"one class, {names[0]}" if len(names) else "no class"
        raise InputError(f"{where} has {only}; classification needs at least two classes")


def read_class_names(folder: Path) -> list[str]:
    """The lines of a `classes.txt` or the list in a `classes.json`; empty without such a file.

    Raises:
        InputError: the file holds something else, or a name twice.
    """
    for file in (folder / name for name in CLASS_FILES):
        if not file.is_file():
            continue
        try:
            text = file.read_text(encoding="utf-8-sig")
            names = json.loads(text) if file.suffix == ".json" else text.splitlines()
        except (ValueError, RecursionError) as error:
            raise InputError(f"{file} cannot be read as a list of classes: {error}") from None
        if not isinstance(names, list) or not all(isinstance(n, str) and n for n in names):
            raise InputError(f"{file} should be a list of the names of the classes, none empty")
        if len(set(names)) < len(names):
            twice = next(name for name in names if names.count(name) > 1)
            raise InputError(f"{file} has class {twice} twice")
        return names
    return []


def shortened(names: Sequence[str], limit: int = 10) -> str:
    """`a, b, c and 97 more`"""
    rest = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + rest


def _numbered(labels: np.ndarray, where: str) -> np.ndarray:
    """The numbers from 0 to the largest label as names."""
    if not len(labels):
        return np.array([], str)
    largest, limit = int(labels.max()), max(len(labels), MOST_CLASSES)
    if largest >= limit:
        raise InputError(
            f"{where} has a label {largest}; labels that are numbers are class indices, which "
            f"start at 0 and here are below {limit}"
        )
    return np.arange(largest + 1).astype(str)
