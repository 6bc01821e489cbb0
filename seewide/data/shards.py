"""Images in tar files as webdataset writes them, read by random access.

A sample is the members that share a name up to its first dot: `0007.jpg` and `0007.cls`, or a
`0007.json` with the label. Reading tars from end to end would tie the order of the samples, the
position in an epoch and the distribution among processes to the files. An index of where each image
lies, built once from the headers of the tars, avoids that; it takes a minute for ImageNet-1k.
(webdataset 1.0 removed `wids`, which did the same.)
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import json
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

import numpy as np

from seewide.errors import InputError, require, write_atomically

from .images import ImageSamples, StoredImage
from .labels import index_labels, read_class_names, split_by_name
from .samples import Names, Samples

IMAGE_KEYS = ("jpg", "jpeg", "png", "webp")
LABEL_KEYS = ("label", "cls", "class", "target")  # of a .json that is a mapping
MOST_LABEL = 2**31 - 1
MOST_LABEL_BYTES = 2**20
LAYOUT = 1  # of the cached index; one of another layout is built again


@dataclass(frozen=True)
class Member(StoredImage):
    """An image in a shard: `size` bytes from `offset` on."""

    shard: str
    name: str
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.shard}/{self.name}"

    def open(self) -> BinaryIO:
        # Opened each time: processes that share an open file would share its position.
        with open(self.shard, "rb") as file:
            file.seek(self.offset)
            content = file.read(self.size)
        if len(content) < self.size:
            raise OSError(f"{self.shard} is cut off")
        return BytesIO(content)


@dataclass(frozen=True)
class Members(Sequence[Member]):
    """The images of some shards."""

    files: tuple[str, ...]
    shards: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    names: Names

    def __len__(self) -> int:
        return len(self.shards)

    def __getitem__(self, index: int) -> Member:
        place = int(self.offsets[index]), int(self.sizes[index])
        return Member(self.files[self.shards[index]], self.names[index], *place)


def is_shards(data: str) -> bool:
    """Whether `--data` means shards: a tar, a pattern of tars, or a folder with some."""
    folder = Path(data)
    if os.path.isdir(folder):
        return any(folder.glob("*.tar")) or any(folder.glob("train/*.tar"))
    return ".tar" in folder.name


def open_shards(data: str) -> tuple[str, tuple[str, ...], Samples, Samples | None, str]:
    """A folder of shards, a pattern with `*` or `{000..099}`, or one tar.

    Shards to train on and held-out ones have `train` and `val` in their names, or are in folders
    of these names. Labels are numbers or names. The names of numbered classes are the lines of a
    `classes.txt`, or the list in a `classes.json`, beside the shards; without these they are the
    numbers.

    Returns:
        The name that opens the same shards again, class names, samples to train on, held-out
        samples or None, and in words where these come from.

    Raises:
        InputError: shards that are not there, are damaged or empty, samples without a label, and
            classes that differ between the splits.
    """
    if "://" in data or data.startswith("pipe:"):
        raise InputError(
            f"shards are read by random access, so from disk, not {data}: mount the bucket or "
            "copy it"
        )
    data = os.path.abspath(data)
    folder = Path(data)
    if folder.is_dir() and not any(folder.glob("*.tar")):
        parts = sorted(folder.glob("train/*.tar")), sorted(folder.glob("val*/*.tar"))
    else:
        files = _matching(str(folder / "*.tar") if folder.is_dir() else data)
        parts = split_by_name(files)
        folder = files[0].parent
    (train, train_labels), (val, val_labels) = (_open(part) for part in parts)
    class_names = read_class_names(folder)
    class_names, labels, other = index_labels(train_labels, val_labels, data, class_names)
    return (
        data,
        class_names,
        _samples(train, labels),
        None if val is None else _samples(val, other),
        "" if val is None else f"{parts[1][0].name} and the other held-out shards",
    )


def _samples(members: Members, labels: np.ndarray) -> ImageSamples:
    return ImageSamples(members, labels, members.names, members.shards, lambda: members.sizes)


def _matching(pattern: str) -> list[Path]:
    if not pattern.endswith(".tar"):
        raise InputError(
            f"shards are uncompressed .tar files, which allow random access, not {pattern}"
        )
    patterns = [pattern]
    if "{" in pattern:
        patterns = list(require("braceexpand", extra="data").braceexpand(pattern))
    found = []
    for each in patterns:
        files = sorted(glob.glob(each))
        if not files:
            raise InputError(f"there is no shard {each}")
        found += files
    return [Path(file) for file in found]


def _open(files: list[Path]) -> tuple[Members, np.ndarray] | tuple[None, None]:
    """The images of the shards and their labels; from the index if there is one."""
    if not files:
        return None, None
    facts = [(str(file), file.stat().st_size, file.stat().st_mtime_ns) for file in files]
    key = hashlib.sha256(json.dumps([LAYOUT, facts]).encode()).hexdigest()[:32]
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    index = cache / "seewide" / "shards" / f"{key}.npz"
    if (cached := _cached(index, files)) is not None:
        return cached
    found = _index(files)
    with contextlib.suppress(InputError):  # a read-only home: the headers are read again each time
        write_atomically(index, lambda path: np.savez(path, **found))
    return _members(files, found)


def _cached(index: Path, files: list[Path]) -> tuple[Members, np.ndarray] | None:
    """What the index says; None if there is none, or one that is damaged or does not fit."""
    try:
        with open(index, "rb") as file, np.load(file, allow_pickle=False) as content:
            members, labels = _members(files, dict(content))
    except Exception:  # zipfile, zlib and numpy raise all kinds of errors for damaged files
        return None
    columns = (members.shards, members.offsets, members.sizes, members.names.ends)
    count = len(labels)
    if not count or any(c.shape != (count,) or c.dtype.kind != "i" for c in columns):
        return None
    lengths = np.array([file.stat().st_size for file in files])
    if members.shards.min() < 0 or members.shards.max() >= len(files):
        return None
    inside = (members.offsets >= 0) & (members.sizes >= 0)
    inside &= members.offsets + members.sizes <= lengths[members.shards]
    ends = members.names.ends
    ordered = (np.diff(ends, prepend=0) >= 0).all() and ends[-1] == len(members.names.blob)
    return (members, labels) if inside.all() and ordered else None


def _members(files: list[Path], index: dict[str, np.ndarray]) -> tuple[Members, np.ndarray]:
    names = Names(index["names"], index["ends"])
    places = (index[name] for name in ("shards", "offsets", "sizes"))
    return Members(tuple(map(str, files)), *places, names), index["labels"]


def _index(files: list[Path]) -> dict[str, np.ndarray]:
    samples = [(shard, sample) for shard, file in enumerate(files) for sample in _read(file)]
    labels = [sample.label for _, sample in samples]
    names = Names.of(sample.name for _, sample in samples)
    numbers = all(isinstance(label, int) for label in labels)
    return {
        "shards": np.array([shard for shard, _ in samples], np.int32),
        "offsets": np.array([sample.offset for _, sample in samples], np.int64),
        "sizes": np.array([sample.size for _, sample in samples], np.int64),
        "labels": np.array(labels, np.int64) if numbers else np.array(list(map(str, labels))),
        "names": names.blob,
        "ends": names.ends,
    }


@dataclass(slots=True)
class _Sample:
    """What a shard holds of one image."""

    key: str
    name: str = ""
    offset: int = 0
    size: int = 0
    label: int | str | None = None
    seen: set[str] = field(default_factory=set)


def _read(file: Path) -> Iterator[_Sample]:
    """The samples of a shard."""
    count = 0
    try:
        with tarfile.open(file, "r:") as shard:
            sample = None
            for member in shard:
                folder, _, name = member.name.rpartition("/")
                stem, _, kind = name.partition(".")
                if not member.isfile() or member.name.startswith("__"):  # __info__ and such
                    continue
                key = f"{folder}/{stem}"
                if sample is None or sample.key != key:
                    if sample is not None:
                        yield _complete(sample, file)
                    sample, count = _Sample(key), count + 1
                _add(sample, kind.lower(), member, shard, file)
            if sample is not None:
                yield _complete(sample, file)
            _check_end(shard, file)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror or error}") from None
    except (tarfile.TarError, ValueError, ArithmeticError) as error:
        raise InputError(f"{file} is not a complete tar file: {error}") from None
    if not count:
        raise InputError(f"{file} holds no images")


def _add(
    sample: _Sample, kind: str, member: tarfile.TarInfo, shard: tarfile.TarFile, file: Path
) -> None:
    if kind in sample.seen:
        raise InputError(f"{file} holds {member.name} twice")
    sample.seen.add(kind)
    if member.issparse():
        raise InputError(f"{file}/{member.name} is stored as a sparse file; store it in full")
    if kind in IMAGE_KEYS:
        if not sample.name:
            sample.name, sample.offset, sample.size = member.name, member.offset_data, member.size
    elif kind == "cls" or (kind == "json" and sample.label is None):
        if member.size > MOST_LABEL_BYTES:
            raise InputError(f"{file}/{member.name} is no label: it has {member.size:,} bytes")
        text = shard.extractfile(member).read().decode("utf-8", "replace").strip()
        sample.label = _label(text, kind)
        if isinstance(sample.label, int) and abs(sample.label) > MOST_LABEL:
            raise InputError(f"{file}/{member.name} has a label that is out of range: {text[:40]}")


def _label(text: str, kind: str) -> int | str | None:
    """A number or a name; None where there is none."""
    if kind == "cls":
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text or None
    try:
        content = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if isinstance(content, dict):
        content = next((content[key] for key in LABEL_KEYS if key in content), None)
    known = isinstance(content, int | str) and not isinstance(content, bool)
    return content if known and content != "" else None


def _complete(sample: _Sample, file: Path) -> _Sample:
    if not sample.name:
        raise InputError(f"sample {sample.key.lstrip('/')} of {file} has no .jpg, .png or .webp")
    if sample.label is None:
        raise InputError(
            f"{file}/{sample.name} has no label: no .cls, and no .json with one of "
            f"{', '.join(LABEL_KEYS)}"
        )
    return sample


def _check_end(shard: tarfile.TarFile, file: Path) -> None:
    """A tar ends with a block of zeros; tarfile also stops, silently, at a damaged header."""
    with open(file, "rb") as content:
        content.seek(shard.offset)
        if content.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
            raise InputError(f"{file} is damaged or cut off at byte {shard.offset}")
