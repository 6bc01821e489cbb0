"""Data for video classification: what `--data` names, and how each layout is opened.

Layouts: one folder of videos per class, with or without train/ and val/ or test/, where a video is
a file or a folder of numbered frames; lists `train.csv`, `val.csv` and `test.csv` of `path label`,
or `path frames label`, without a header (VideoMAE, Something-Something), or with a header `path` or
`clip` and `label`; UCF101 (`classInd.txt`, `trainlist01.txt`, `testlist01.txt`).
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .folders import HELD_OUT_NAMES, find_split_folders
from .frames import SUFFIXES, Video, holds_frames, open_video
from .images import is_hidden
from .labels import HELD_OUT_IN_WORDS, check_classes, hold_out
from .samples import Sample, Samples

LAYOUTS = (
    "a folder with one folder of videos or frame folders per class (with or without train/ and "
    "val/), lists train.csv and val.csv of `path label`, or UCF101"
)
UCF_CLASSES = "classInd.txt"


class VideoSamples(Samples):
    """`{"video": Video, "label": class index}`; the transform decides which frames to decode.

    Args:
        folder: that `names` are relative to.
        names: of the files or frame folders.
        labels: (N,) class indices.
    """

    def __init__(self, folder: Path, names: Sequence[str], labels: Sequence[int]) -> None:
        self.folder, self._names = folder, list(names)
        self.labels = np.asarray(labels, np.int64)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, index: int) -> Sample:
        return {"video": self.video(index), "label": int(self.labels[index])}

    def video(self, index: int) -> Video:
        return open_video(self.folder / self._names[index])

    def verify(self, index: int) -> None:
        self.video(index).verify()

    def names(self) -> Iterable[str]:
        return self._names


@dataclass(frozen=True)
class VideoData:
    """Labelled videos.

    Attributes:
        name: opens the same data again from any working directory.
        class_names: in the order of the labels.
        train, val: samples, see `VideoSamples`.
        test: samples, if the data has three parts.
        held_out: in words, where `val` comes from.
    """

    name: str
    class_names: tuple[str, ...]
    train: Samples
    val: Samples
    held_out: str
    test: Samples | None = None


def describe_video(data: str) -> str | None:
    """What there is at `data` for video classification, in words; None if nothing is."""
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        return None
    if (folder / UCF_CLASSES).is_file():
        return "UCF101"
    try:
        first = (find_split_folders(folder) or (folder,))[0]
        classes = _class_videos(first)
        if len(classes) > 1:
            some = next(iter(next(iter(classes.values()))))
            kind = "frame folders" if (first / some).is_dir() else "videos"
            return f"{len(classes)} folders of {kind}"
        lists = _lists(folder)
        if "train" in lists and (rows := _read_list(lists["train"], limit=1)):
            path = folder / rows[0][0]
            if path.suffix.lower() in SUFFIXES or (path.is_dir() and holds_frames(path)):
                return "lists of videos"
    except InputError:
        return None
    return None


def open_videos(data: str | Path) -> VideoData:
    """Videos to train on and held-out ones.

    Raises:
        InputError: no such data, too few classes, or lists that cannot be read.
    """
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        raise InputError(f"there is no folder {data}; video data is {LAYOUTS}")
    folder = folder.resolve()
    if (folder / UCF_CLASSES).is_file():
        return _ucf101(folder)
    splits = find_split_folders(folder)
    files = _class_videos(splits[0] if splits else folder)
    if len(files) > 1:
        return _folders(folder, splits, files)
    if "train" in _lists(folder):
        return _listed(folder)
    raise InputError(f"{folder} has no two folders of videos; video data is {LAYOUTS}")


def _class_videos(folder: Path) -> dict[str, list[str]]:
    """Videos, relative to `folder`, by the name of their class folder."""
    found = {}
    for entry in sorted(folder.iterdir()):
        if entry.is_dir() and not is_hidden(entry.name):
            videos = [
                os.path.join(entry.name, member.name)
                for member in sorted(entry.iterdir())
                if not is_hidden(member.name)
                and (holds_frames(member) if member.is_dir() else member.suffix.lower() in SUFFIXES)
            ]
            if videos:
                found[entry.name] = videos
    return found


def _folders(
    folder: Path, splits: tuple[Path, Path] | None, files: dict[str, list[str]]
) -> VideoData:
    names = tuple(sorted(files))
    train = _of_classes(splits[0] if splits else folder, files, names)
    if splits is None:
        return VideoData(str(folder), names, *hold_out(train, names), HELD_OUT_IN_WORDS)
    parts = [
        _of_classes(part, _class_videos(part), names)
        for name in HELD_OUT_NAMES
        if (part := folder / name).is_dir()
    ]
    words = f"{splits[0].name}/ and {splits[1].name}/ of the folder"
    return VideoData(str(folder), names, train, parts[0], words, (*parts[1:], None)[0])


def _of_classes(
    folder: Path, files: dict[str, list[str]], class_names: Sequence[str]
) -> VideoSamples:
    wrong = sorted(set(files) - set(class_names))
    if wrong:
        raise InputError(f"{folder} has a class {wrong[0]} that the training data does not have")
    pairs = [(name, k) for k, label in enumerate(class_names) for name in files.get(label, [])]
    if not pairs:
        raise InputError(f"{folder} has no videos ({', '.join(SUFFIXES)} or folders of frames)")
    return VideoSamples(folder, *zip(*pairs, strict=True))


def _lists(folder: Path) -> dict[str, Path]:
    found = {part: folder / f"{part}.csv" for part in ("train", "val", "test")}
    return {part: path for part, path in found.items() if path.is_file()}


def _read_list(path: Path, limit: int = 0) -> list[tuple[str, str]]:
    """(path, label) of each line.

    Raises:
        InputError: a line that is neither `path label` nor `path frames label`.
    """
    text = path.read_text(encoding="utf-8-sig", errors="replace")
    lines = [line for line in text.splitlines() if line.strip()]
    header = next(csv.reader(lines[:1]), [])
    column = next((name for name in ("path", "clip", "video") if name in header), None)
    if column and "label" in header:
        rows = list(csv.DictReader(lines[: limit + 1] if limit else lines))
        return [(row[column], row["label"]) for row in rows]
    found = []
    for number, line in enumerate(lines[:limit] if limit else lines, 1):
        parts = line.split()
        # Paths may have blanks, labels and numbers of frames are numbers.
        if len(parts) < 2 or not parts[-1].lstrip("-").isdigit():
            raise InputError(f"{path}, line {number} is not `path label`: {line!r}")
        numbers = 2 if len(parts) > 2 and parts[-2].isdigit() else 1
        found.append((" ".join(parts[:-numbers]), parts[-1]))
    return found


def _listed(folder: Path) -> VideoData:
    rows = {part: _read_list(path) for part, path in _lists(folder).items()}
    labels = sorted({label for _, label in rows["train"]}, key=_natural)
    check_classes(labels, str(folder / "train.csv"))

    def of(part: str) -> VideoSamples:
        wrong = next((label for _, label in rows[part] if label not in labels), None)
        if wrong is not None:
            raise InputError(f"{folder / part}.csv has a label {wrong} that train.csv lacks")
        names = [name for name, _ in rows[part]]
        return VideoSamples(folder, names, [labels.index(label) for _, label in rows[part]])

    train = of("train")
    if "val" not in rows and "test" not in rows:
        return VideoData(str(folder), tuple(labels), *hold_out(train, labels), HELD_OUT_IN_WORDS)
    held = [part for part in ("val", "test") if part in rows]
    others = [of(part) for part in held]
    return VideoData(
        str(folder), tuple(labels), train, others[0], f"{held[0]}.csv", (*others[1:], None)[0]
    )


def _natural(label: str) -> tuple[int, str]:
    return (int(label) if label.lstrip("-").isdigit() else 0, label)


def _ucf101(folder: Path) -> VideoData:
    """The first of its three splits."""
    pairs = [line.split() for line in (folder / UCF_CLASSES).read_text().splitlines() if line]
    names = tuple(name for _, name in sorted(pairs, key=lambda pair: int(pair[0])))

    def of(part: str) -> VideoSamples:
        path = folder / f"{part}list01.txt"
        if not path.is_file():
            raise InputError(f"UCF101 needs {path}")
        videos = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
        wrong = next((v for v in videos if v.split("/")[0] not in names), None)
        if wrong is not None:
            raise InputError(f"{path} names {wrong}, whose class is not in {UCF_CLASSES}")
        return VideoSamples(folder, videos, [names.index(v.split("/")[0]) for v in videos])

    return VideoData(str(folder), names, of("train"), of("test"), "testlist01.txt")
