"""Predictions as files that other tools read, and that the readers here read again.

    predictions.json      COCO: images, categories, and annotations with a score
    labels/0.txt          YOLO: `class x y width height score` in fractions of the image
    0.png                 masks of objects: 16-bit, 0 is the background, k the k-th object
    0.png                 classes of pixels: 8-bit with the palette of Pascal VOC

Each but COCO's is named as its image, and `classes.txt` beside them has the names of the classes.
Objects are {"name", "box" (x1, y1, x2, y2 in pixels)[, "score", "mask" in COCO's run lengths]}.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import Image

from seewide.errors import InputError, require, write_atomically

from .masks import palette


class Described(Protocol):
    """What a model says of an image: `seewide.tasks.FilePrediction`."""

    path: Path
    size: tuple[int, int]
    description: dict[str, Any]


def write_coco(found: Sequence[Described], class_names: Sequence[str], folder: Path) -> list[Path]:
    """Ids of categories are the positions of the classes, from 1."""
    names = list(class_names)
    images, annotations = [], []
    for number, entry in enumerate(found, start=1):
        width, height = entry.size
        images.append(
            {"id": number, "file_name": str(entry.path), "height": height, "width": width}
        )
        for thing in entry.description["objects"]:
            x1, y1, x2, y2 = thing["box"]
            box = [x1, y1, round(x2 - x1, 2), round(y2 - y1, 2)]
            annotation = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": names.index(thing["name"]) + 1,
                "bbox": box,
                "area": round(box[2] * box[3], 2),
                "iscrowd": 0,
            }
            if "score" in thing:
                annotation["score"] = round(thing["score"], 5)
            if "mask" in thing:
                annotation["segmentation"] = thing["mask"]
                annotation["area"] = int(decode_runs(thing["mask"]).sum())
            annotations.append(annotation)
    categories = [{"id": i, "name": name} for i, name in enumerate(names, start=1)]
    content = {"images": images, "categories": categories, "annotations": annotations}
    return [_write_text(folder / "predictions.json", json.dumps(content))]


def write_yolo(found: Sequence[Described], class_names: Sequence[str], folder: Path) -> list[Path]:
    names, written = list(class_names), []
    for stem, entry in _named(found):
        width, height = entry.size
        lines = []
        for thing in entry.description["objects"]:
            x1, y1, x2, y2 = thing["box"]
            values = (
                (x1 + x2) / 2 / width, (y1 + y2) / 2 / height,
                (x2 - x1) / width, (y2 - y1) / height,
            )  # fmt: skip
            words = [f"{value:.6f}" for value in values]
            if "score" in thing:
                words.append(f"{thing['score']:.5f}")
            lines.append(" ".join([str(names.index(thing["name"])), *words]) + "\n")
        written.append(_write_text(folder / "labels" / f"{stem}.txt", "".join(lines)))
    return [*written, _write_names(folder, names)]


def write_object_masks(
    found: Sequence[Described], class_names: Sequence[str], folder: Path
) -> list[Path]:
    """Where objects overlap, the one with the higher score is seen.

    Raises:
        InputError: objects without masks.
    """
    written = []
    for stem, entry in _named(found):
        width, height = entry.size
        index_HW = np.zeros((height, width), np.uint16)
        objects = entry.description["objects"]
        for number in range(len(objects), 0, -1):
            if "mask" not in objects[number - 1]:
                raise InputError("these detections have no masks; take coco or yolo")
            index_HW[decode_runs(objects[number - 1]["mask"]) > 0] = number
        written.append(_write_image(folder / f"{stem}.png", Image.fromarray(index_HW)))
    return [*written, _write_names(folder, class_names)]


def write_label_maps(
    found: Sequence[Described], class_names: Sequence[str], folder: Path
) -> list[Path]:
    written = []
    for stem, entry in _named(found):
        image = _paletted(decode_png(entry.description["label_map"]))
        written.append(_write_image(folder / f"{stem}.png", image))
    return [*written, _write_names(folder, class_names)]


def encode_png(label_HW: np.ndarray) -> str:
    """Class indices of pixels as a PNG file in base64, so that they fit into JSON."""
    stream = io.BytesIO()
    _paletted(label_HW).save(stream, "PNG")
    return base64.b64encode(stream.getvalue()).decode()


def decode_png(text: str) -> np.ndarray:
    """(H, W) uint8, the inverse of `encode_png`."""
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))


def decode_runs(mask: dict[str, Any]) -> np.ndarray:
    """(H, W) uint8 of 0 and 1, the inverse of `seewide.data.coco.encode_mask`."""
    coder = require("faster_coco_eval.core.mask", extra="detection")
    return coder.decode({"size": mask["size"], "counts": mask["counts"].encode()})


def _paletted(label_HW: np.ndarray) -> Image.Image:
    image = Image.fromarray(label_HW.astype(np.uint8))
    image.putpalette(palette())
    return image


def _named(found: Iterable[Described]) -> Iterable[tuple[str, Described]]:
    """Each with the stem of its file, numbered where several files have the same."""
    count: dict[str, int] = {}
    for entry in found:
        stem = entry.path.stem
        count[stem] = count.get(stem, 0) + 1
        yield (stem if count[stem] == 1 else f"{stem}-{count[stem]}"), entry


def _write_names(folder: Path, names: Sequence[str]) -> Path:
    return _write_text(folder / "classes.txt", "".join(f"{name}\n" for name in names))


def _write_text(path: Path, text: str) -> Path:
    return write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def _write_image(path: Path, image: Image.Image) -> Path:
    write: Callable[[Path], object] = lambda scratch: image.save(scratch, "PNG")  # noqa: E731
    return write_atomically(path, write)
