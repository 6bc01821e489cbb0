"""Images with captions, read from the formats that people have.

    a CSV or TSV file       any separator; a column of image paths and one of captions
    a folder of images      each with its captions, one per line, in a text file beside it
    Flickr's JSON           {"images": [{"filename", "split", "sentences": [{"raw"}]}]}
    COCO's JSON             {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}

A folder with train.csv and val.csv (or .tsv, .json, or folders of these names) is both splits.
Pairs without an image, or without a caption, are left out, counted and named.
"""  # noqa: E501

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from seewide.data.images import list_image_files, verify_image
from seewide.errors import InputError

IMAGE_COLUMNS = ("image", "filepath", "file_path", "filename", "file", "path", "image_path", "url")
CAPTION_COLUMNS = ("caption", "title", "text", "sentence", "raw", "comment")
SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "test")}
SHOWN = 3


@dataclass
class Skipped:
    """Pairs that were left out, by reason."""

    names: dict[str, list[str]] = field(default_factory=dict)

    def add(self, reason: str, name: object) -> None:
        self.names.setdefault(reason, []).append(str(name))

    def __len__(self) -> int:
        return sum(map(len, self.names.values()))

    def lines(self) -> list[str]:
        """`reason: name`, one per pair."""
        return [f"{reason}: {name}" for reason, names in self.names.items() for name in names]

    def __str__(self) -> str:
        """`2 missing image (a.jpg, b.jpg), 1 empty caption (c.jpg)`."""
        return ", ".join(
            f"{len(names)} {reason} ({', '.join(names[:SHOWN])}{', ...' * (len(names) > SHOWN)})"
            for reason, names in self.names.items()
        )


@dataclass(frozen=True)
class Pairs:
    """N images with one or more captions each.

    Attributes:
        images: paths.
        captions: the captions of each image.
        skipped: what was left out while reading.
    """

    images: tuple[Path, ...]
    captions: tuple[tuple[str, ...], ...]
    skipped: Skipped = field(default_factory=Skipped)

    def __len__(self) -> int:
        """Number of pairs."""
        return sum(map(len, self.captions))

    def __iter__(self) -> Iterator[tuple[Path, str]]:
        for image, captions in zip(self.images, self.captions, strict=True):
            for caption in captions:
                yield image, caption


def read_pairs(data: str | os.PathLike, split: str = "", check_images: bool = True) -> Pairs:
    """Read images with captions.

    Args:
        data: a file or folder, see the top of this file.
        split: `train` or `val`, looked for in a folder and in Flickr's JSON; empty: everything.
        check_images: decode every image once; without it, only missing files are found.

    Raises:
        InputError: no such file, a file without the columns or keys, or no pair that can be read.
    """
    path = find_split(Path(data), split)
    skipped = Skipped()
    if path.is_dir():
        found = _in_folder(path, skipped)
    elif path.suffix.lower() == ".json":
        found = _in_json(path, split)
    else:
        found = _in_table(path)
    pairs = _collect(found, skipped, check_images)
    if not pairs.images:
        reason = f": {skipped}" if skipped else ""
        raise InputError(f"there is no image with a caption in {path}{reason}")
    return pairs


def find_split(path: Path, split: str) -> Path:
    """The file or folder of a split inside `path`, or `path` itself.

    Raises:
        InputError: nothing there.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist")
    if not path.is_dir():
        return path
    candidates = [
        path / f"{name}{suffix}"
        for name in SPLITS.get(split, ())
        for suffix in (".csv", ".tsv", ".json", "")
    ]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    if split == "val" and any((path / name).exists() for name in ("train.csv", "train.json")):
        raise InputError(f"{path} has no {', '.join(SPLITS['val'])} split beside its training data")
    return path


def _collect(
    found: Iterable[tuple[Path, str]], skipped: Skipped, check_images: bool
) -> Pairs:  # fmt: skip
    """Group pairs by image, without those that cannot be used."""
    captions: dict[Path, list[str]] = {}
    usable: dict[Path, str] = {}
    for image, caption in found:
        if image not in usable:
            usable[image] = _wrong_with(image, check_images)
        if usable[image]:
            skipped.add(usable[image], image.name)
        elif not (caption := " ".join(caption.split())):
            skipped.add("empty caption", image.name)
        else:
            captions.setdefault(image, []).append(caption)
    return Pairs(tuple(captions), tuple(map(tuple, captions.values())), skipped)


def _wrong_with(image: Path, decode: bool) -> str:
    if not image.is_file():
        return "missing image"
    if decode:
        try:
            verify_image(image)
        except InputError:
            return "broken image"
    return ""


def _in_table(path: Path) -> Iterator[tuple[Path, str]]:
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        separator = sniff_separator(file.readline())
        file.seek(0)
        reader = csv.DictReader(file, delimiter=separator)
        names = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
        image = _column(path, names, "image", IMAGE_COLUMNS)
        caption = _column(path, names, "caption", CAPTION_COLUMNS)
        roots = _roots(path.parent)
        for row in reader:
            yield _located(roots, (row[image] or "").strip()), row[caption] or ""


def sniff_separator(header: str) -> str:
    """The separator of a table by its first line: tab, semicolon, pipe or comma."""
    return max("\t;|,", key=header.count)


def _column(path: Path, names: dict[str, str], what: str, known: Sequence[str]) -> str:
    for name in known:
        if name in names:
            return names[name]
    raise InputError(
        f"{path} has no column of {what}s: its columns are {', '.join(names) or 'none'}, "
        f"allowed are {', '.join(known)}"
    )


def _roots(folder: Path) -> list[Path]:
    """Where image paths may start: the file's folder, `images` in it, the folder above."""
    names = ("images", "Images", "Flicker8k_Dataset", "train2017", "val2017", "train2014")
    inner = [folder / name for name in names if (folder / name).is_dir()]
    above = [folder.parent / name for name in (".", *names) if (folder.parent / name).is_dir()]
    return [folder, *inner, *above]


def _located(roots: Sequence[Path], name: str) -> Path:
    for root in roots:
        if name and (root / name).is_file():
            return root / name
    return roots[0] / (name or "(no path)")


def _in_folder(folder: Path, skipped: Skipped) -> Iterator[tuple[Path, str]]:
    for name in list_image_files(folder):
        image = folder / name
        text = image.with_suffix(".txt")
        if not text.is_file():
            skipped.add("image without a text file", name)
            continue
        lines = text.read_text(encoding="utf-8-sig", errors="replace").splitlines()
        for line in [line for line in lines if line.strip()] or [""]:
            yield image, line


def _in_json(path: Path, split: str) -> Iterator[tuple[Path, str]]:
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("images"), list):
        raise InputError(f"{path} is neither Flickr's nor COCO's JSON: it has no list `images`")
    roots = _roots(path.parent)
    try:
        if isinstance(content.get("annotations"), list):
            files = {entry["id"]: entry["file_name"] for entry in content["images"]}
            for entry in content["annotations"]:
                name = files.get(entry["image_id"], f"image {entry['image_id']}")
                yield _located(roots, name), entry["caption"]
            return
        for entry in content["images"]:
            if not split or entry.get("split", split) in (*SPLITS[split], "restval"):
                for sentence in entry["sentences"]:
                    yield _located(roots, entry["filename"]), sentence["raw"]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} has an entry without {error}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InputError: no such file, or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}") from None
    except ValueError as error:
        raise InputError(f"{path} is no JSON file: {error}") from None
