"""Data for audio classification: what `--data` names, and how each layout is opened.

Layouts: one folder per class, with or without train/ and val/ or test/; Speech Commands (with
`validation_list.txt` and `testing_list.txt`); ESC-50 (`meta/esc50.csv`); AudioSet (segment lists
of `YTID, start, end, "mid,mid"`) and AST's JSON lists, both with `class_labels_indices.csv`.
"""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .folders import HELD_OUT_NAMES, find_split_folders
from .labels import (
    ANY_HELD_OUT_IN_WORDS,
    HELD_OUT_IN_WORDS,
    check_classes,
    hold_out,
    hold_out_any,
)
from .samples import Sample, Samples
from .waves import SUFFIXES, list_waves, read_wave, wave_rate

BACKGROUND = "_background_noise_"
LOOKED_AT = 200  # headers read before training; the others are checked when they are read
LAYOUTS = (
    "a folder with one folder of recordings per class (with or without train/ and val/), Speech "
    "Commands, ESC-50, AudioSet or AST lists"
)


class AudioSamples(Samples):
    """`{"waveform": float32 (n,), "sample_rate": Hz, "label": class index or K zeros and ones}`.

    Args:
        folder: that `names` are relative to.
        names: of the files.
        labels: (N,) class indices, or (N, K) zeros and ones.
        rate: the sample rate that all files should have.
    """

    def __init__(self, folder: Path, names: Sequence[str], labels: np.ndarray, rate: int) -> None:
        self.folder, self._names, self.targets, self.rate = folder, list(names), labels, rate
        self.labels = labels if labels.ndim == 1 else None

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        path = self.folder / self._names[index]
        waveform, rate = read_wave(path)
        if rate != self.rate:
            raise InputError(
                f"{path} has a sample rate of {rate} Hz, the others of {self.rate} Hz; resample it"
            )
        target = self.targets[index]
        label = int(target) if self.labels is not None else target.astype(np.float32)
        return {"waveform": waveform, "sample_rate": rate, "label": label}

    def names(self) -> Iterable[str]:
        return self._names

    def sizes(self) -> np.ndarray:
        files = (self.folder / name for name in self._names)
        return np.fromiter((f.stat().st_size if f.exists() else 0 for f in files), np.int64)


@dataclass(frozen=True)
class AudioData:
    """Labelled recordings.

    Attributes:
        name: opens the same data again from any working directory.
        class_names: in the order of the labels.
        multi_label: whether a recording has a set of classes.
        sample_rate: in Hz, of all.
        train, val: samples, see `AudioSamples`.
        held_out: in words, where `val` comes from.
    """

    name: str
    class_names: tuple[str, ...]
    multi_label: bool
    sample_rate: int
    train: Samples
    val: Samples
    held_out: str


def describe_audio(data: str) -> str | None:
    """What there is at `data` for audio classification, in words; None if nothing is."""
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        return None
    if (folder / "testing_list.txt").is_file():
        return "Speech Commands"
    if (folder / "meta" / "esc50.csv").is_file():
        return "ESC-50"
    if (folder / "class_labels_indices.csv").is_file():
        return "lists of recordings with AudioSet labels"
    try:
        classes = _class_files((find_split_folders(folder) or (folder,))[0])
    except InputError:
        return None
    return f"{len(classes)} folders of recordings" if len(classes) > 1 else None


def open_audio(data: str | Path, fold: int = 5) -> AudioData:
    """Recordings to train on and held-out ones.

    Args:
        data: a folder, see the module.
        fold: of ESC-50, held out.

    Raises:
        InputError: no such data, too few classes, or recordings of several sample rates.
    """
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        raise InputError(f"there is no folder {data}; audio data is {LAYOUTS}")
    folder = folder.resolve()
    if (folder / "testing_list.txt").is_file():
        return _speech_commands(folder)
    if (folder / "meta" / "esc50.csv").is_file():
        return _esc50(folder, fold)
    if (folder / "class_labels_indices.csv").is_file():
        return _audioset(folder)
    splits = find_split_folders(folder)
    first = splits[0] if splits else folder
    files = _class_files(first)
    names = tuple(sorted(files))
    if len(names) < 2:
        raise InputError(f"{first} has no two folders of {', '.join(SUFFIXES)}; data is {LAYOUTS}")
    rate = _common_rate([first / name for members in files.values() for name in members])
    train = _of_classes(first, files, names, rate)
    if splits is None:
        parts = hold_out(train, names)
        return AudioData(str(folder), names, False, rate, *parts, HELD_OUT_IN_WORDS)
    val = _of_classes(splits[1], _class_files(splits[1]), names, rate)
    words = f"{splits[0].name}/ and {splits[1].name}/ of the folder"
    return AudioData(str(folder), names, False, rate, train, val, words)


def _class_files(folder: Path) -> dict[str, list[str]]:
    """Recordings, relative to `folder`, by the name of their class folder."""
    found = {}
    for entry in sorted(folder.iterdir()):
        hidden = entry.name.startswith(".") or entry.name in (BACKGROUND, *HELD_OUT_NAMES, "train")
        if entry.is_dir() and not hidden:
            waves = [os.path.join(entry.name, name) for name in list_waves(entry)]
            if waves:
                found[entry.name] = waves
    return found


def _of_classes(
    folder: Path, files: dict[str, list[str]], class_names: Sequence[str], rate: int
) -> AudioSamples:
    wrong = sorted(set(files) - set(class_names))
    if wrong:
        raise InputError(f"{folder} has a class {wrong[0]} that the training data does not have")
    names = [name for label in class_names for name in files.get(label, [])]
    counts = [len(files.get(label, [])) for label in class_names]
    return AudioSamples(folder, names, np.repeat(np.arange(len(counts)), counts), rate)


def _common_rate(paths: Sequence[Path]) -> int:
    step = max(1, len(paths) // LOOKED_AT)
    rates: dict[int, Path] = {}
    for path in paths[::step]:
        try:
            rates.setdefault(wave_rate(path), path)
        except InputError:  # damaged: the loader decides what to do about it
            continue
    if not rates:
        raise InputError(f"none of the recordings in {paths[0].parent.parent} can be read")
    if len(rates) > 1:
        several = " and ".join(f"{rate} Hz ({path.name})" for rate, path in sorted(rates.items()))
        raise InputError(f"the recordings have several sample rates: {several}; resample them")
    return next(iter(rates))


def _speech_commands(folder: Path) -> AudioData:
    """Lists of `<word>/<file>` for validation and testing; everything else is to train on."""
    listed = {}
    for part in ("validation", "testing"):
        path = folder / f"{part}_list.txt"
        listed[part] = set(path.read_text().split()) if path.is_file() else set()
    files = _class_files(folder)
    class_names = tuple(sorted(files))
    check_classes(class_names, str(folder))
    rate = _common_rate([folder / name for members in files.values() for name in members])

    def only(keep) -> AudioSamples:
        kept = {label: [n for n in names if keep(n.replace(os.sep, "/"))]
                for label, names in files.items()}  # fmt: skip
        return _of_classes(folder, kept, class_names, rate)

    train = only(lambda name: name not in listed["validation"] | listed["testing"])
    val = only(lambda name: name in listed["validation"])
    return AudioData(
        str(folder), class_names, False, rate, train, val, "the official validation list"
    )


def _esc50(folder: Path, fold: int) -> AudioData:
    rows = _rows(folder / "meta" / "esc50.csv", ("filename", "fold", "target", "category"))
    names = dict(sorted({int(row["target"]): row["category"] for row in rows}.items()))
    class_names = tuple(names.values())
    position = {target: index for index, target in enumerate(names)}
    audio = folder / "audio"
    rate = _common_rate([audio / row["filename"] for row in rows])

    def of(selected: Sequence[dict[str, str]]) -> AudioSamples:
        labels = np.array([position[int(row["target"])] for row in selected], np.int64)
        return AudioSamples(audio, [row["filename"] for row in selected], labels, rate)

    held = [row for row in rows if int(row["fold"]) == fold]
    if not held or len(held) == len(rows):
        folds = sorted({int(row["fold"]) for row in rows})
        raise InputError(f"ESC-50 has the folds {folds}, got fold {fold}")
    rest = [row for row in rows if int(row["fold"]) != fold]
    return AudioData(str(folder), class_names, False, rate, of(rest), of(held), f"fold {fold}")


def _audioset(folder: Path) -> AudioData:
    """AST's JSON lists, or AudioSet's segment lists with the clips beside them."""
    rows = _rows(folder / "class_labels_indices.csv", ("index", "mid", "display_name"))
    rows.sort(key=lambda row: int(row["index"]))
    class_names = tuple(row["display_name"] for row in rows)
    position = {row["mid"]: index for index, row in enumerate(rows)}
    lists = sorted(p for p in folder.iterdir() if p.suffix in (".json", ".csv"))
    train: list[tuple[str, np.ndarray]] = []
    val: list[tuple[str, np.ndarray]] = []
    for path in lists:
        if path.name == "class_labels_indices.csv" or "weight" in path.stem:
            continue
        entries = _json_list(path) if path.suffix == ".json" else _segments(path, folder)
        held = any(word in path.stem.lower() for word in ("val", "eval", "test"))
        for name, mids in entries:
            target = np.zeros(len(class_names), np.float32)
            for mid in filter(None, (part.strip() for part in mids.split(","))):
                if mid not in position:
                    raise InputError(f"{path} names a label {mid} that class_labels_indices lacks")
                target[position[mid]] = 1
            (val if held else train).append((name, target))
    if not train:
        raise InputError(f"{folder} has no list of recordings to train on (train*.json or *.csv)")
    rate = _common_rate([folder / name for name, _ in train])

    def of(part: Sequence[tuple[str, np.ndarray]]) -> AudioSamples:
        names, targets = zip(*part, strict=True)
        return AudioSamples(folder, names, np.stack(targets), rate)

    if val:
        parts, words = (of(train), of(val)), "the lists named val, eval or test"
    else:
        parts, words = hold_out_any(of(train)), ANY_HELD_OUT_IN_WORDS
    return AudioData(str(folder), class_names, True, rate, *parts, words)


def _json_list(path: Path) -> list[tuple[str, str]]:
    try:
        entries = json.loads(path.read_text())["data"]
        return [(entry["wav"], entry["labels"]) for entry in entries]
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f'{path} is not a list of recordings, {{"data": [{{"wav": ..., "labels": ...}}]}}'
        ) from None


def _segments(path: Path, folder: Path) -> list[tuple[str, str]]:
    """Clips of the list that are there, as `<YTID>.wav` or `Y<YTID>.wav` below the folder."""
    there = {Path(name).stem: name for name in list_waves(folder)}
    found = []
    with open(path, newline="") as file:
        lines = (line for line in file if not line.startswith("#"))
        for row in csv.reader(lines, skipinitialspace=True):
            if len(row) < 4:
                raise InputError(f"{path} is not a list of `YTID, start, end, labels`: {row}")
            name = there.get(row[0]) or there.get(f"Y{row[0]}")
            if name:
                found.append((name, row[3]))
    return found


def _rows(path: Path, columns: Sequence[str]) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        reader = csv.DictReader(file)
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise InputError(f"{path} has no column {sorted(missing)[0]}")
        return list(reader)
