"""YOLO's layout of boxes: one text file per image, `class x y width height` in fractions.

Layouts: `DIR/images/train` and `DIR/labels/train`, or `DIR/train/images` and `DIR/train/labels`,
with the class names in `DIR/classes.txt` or under `names` in `DIR/data.yaml`.
"""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from seewide.errors import InputError

from .boxes import Annotations, BoxSamples
from .images import list_image_files, open_image

HELD_OUT = ("val", "valid", "validation", "test")


def find_yolo(folder: Path) -> tuple[Path, Path] | None:
    """The folders of training and held-out images; None if this is not YOLO's layout."""
    for pattern in ("images/{}", "{}/images"):
        train = folder / pattern.format("train")
        held_out = [folder / pattern.format(name) for name in HELD_OUT]
        held_out = next((place for place in held_out if place.is_dir()), None)
        if train.is_dir() and held_out is not None and _labels_of(train).is_dir():
            return train, held_out
    return None


def class_names(folder: Path) -> list[str]:
    """The class names of a data set.

    Raises:
        InputError: there is neither `classes.txt` nor `data.yaml` with `names`.
    """
    listed = folder / "classes.txt"
    if listed.is_file():
        try:
            lines = listed.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{listed} is no text: {error}") from None
        return [line.strip() for line in lines if line.strip()]
    described = folder / "data.yaml"
    if described.is_file():
        import yaml

        try:
            names = yaml.safe_load(described.read_bytes())["names"]
        except (yaml.YAMLError, KeyError, TypeError) as error:
            raise InputError(
                f"{described} does not say the names of the classes: {error}"
            ) from None
        return [str(n) for n in (names.values() if isinstance(names, dict) else names)]
    raise InputError(f"{folder} has neither classes.txt nor data.yaml, which name the classes")


def open_yolo(images: Path, names: list[str]) -> BoxSamples:
    """The images of a folder.

    Raises:
        InputError: a line that is no box, or of a class beyond `names`; the sentence names it.
    """
    labels = _labels_of(images)
    entries = []
    for name in list_image_files(images):
        size = open_image(images / name, _size)
        entry = Annotations(images / name, name, size=size)
        path = (labels / name).with_suffix(".txt")
        for number, line in enumerate(path.read_text().splitlines() if path.is_file() else [], 1):
            if line.strip():
                _add(entry, line, f"line {number} of {path}", size, len(names))
        entries.append(entry)
    if not entries:
        raise InputError(f"{images} holds no images")
    return BoxSamples(entries, images)


def _add(entry: Annotations, line: str, where: str, size: tuple[int, int], classes: int) -> None:
    try:
        label, x, y, width, height = (float(word) for word in line.split())
    except ValueError:
        raise InputError(f"{where} should be `class x y width height`, got {line!r}") from None
    if label not in range(classes):
        raise InputError(f"{where} has class {label:g}, there are 0 to {classes - 1}")
    high, wide = size
    entry.boxes.append(
        ((x - width / 2) * wide, (y - height / 2) * high,
         (x + width / 2) * wide, (y + height / 2) * high)
    )  # fmt: skip
    entry.labels.append(int(label))
    entry.crowd.append(False)


def _labels_of(images: Path) -> Path:
    return Path(*(re.sub("^images$", "labels", part) for part in images.parts))


def _size(image: Image.Image) -> tuple[int, int]:
    return image.height, image.width
