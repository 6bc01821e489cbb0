"""COCO's json files: boxes, polygons, run-length encoded masks, crowds.

Layouts: `DIR/train.json` and `DIR/val.json` with the images in `DIR` or `DIR/images`;
`DIR/annotations/instances_train*.json` with `DIR/train*` (COCO itself);
`DIR/train/_annotations.coco.json` beside the images (Roboflow).
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from seewide.errors import InputError, require

from .boxes import Annotations, BoxSamples

HELD_OUT = ("val", "valid", "validation", "test")


def find_coco(folder: Path) -> tuple[Path, Path] | None:
    """The json files of training and held-out images; None if this is not COCO's layout."""
    for pattern in ("{}.json", "annotations/instances_{}*.json", "{}/_annotations.coco.json"):
        files = [sorted(folder.glob(pattern.format(name))) for name in ("train", *HELD_OUT)]
        held_out = next((found for found in files[1:] if found), [])
        if files[0] and held_out:
            return files[0][-1], held_out[-1]
    return None


def read_json(path: Path) -> dict[str, Any]:
    """A COCO file, whose tables are there.

    Raises:
        InputError: it is no json, or `images`, `annotations` or `categories` is missing.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not a json file: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"{path} has no list {key!r}, which COCO's annotations have")
    return content


def category_names(path: Path, content: dict[str, Any]) -> dict[int, str]:
    """Names of the categories by their ids, in ascending order of the ids.

    Raises:
        InputError: an entry that lacks a value, or an annotation of an unknown category.
    """
    check_entries(path, content)
    names = {entry["id"]: str(entry["name"]) for entry in content["categories"]}
    used = {entry["category_id"] for entry in content["annotations"]}
    if wrong := sorted(used - names.keys()):
        raise InputError(
            f"{path} has annotations of category {wrong[0]}, which is not among its categories "
            f"{sorted(names)[:10]}"
        )
    return {key: names[key] for key in sorted(names)}


# What each entry of a table must have, and of which types.
ENTRIES: dict[str, dict[str, tuple[type, ...]]] = {
    "images": {"id": (int, str), "file_name": (str,)},
    "categories": {"id": (int, str), "name": (str, int)},
    "annotations": {"image_id": (int, str), "category_id": (int, str), "bbox": (list,)},
}


def check_entries(path: Path, content: dict[str, Any]) -> None:
    """Refuse entries that lack what a COCO file must say.

    Raises:
        InputError: names the first such entry.
    """
    for table, needed in ENTRIES.items():
        for number, entry in enumerate(content[table]):
            for key, kinds in needed.items():
                value = entry.get(key) if isinstance(entry, dict) else None
                if not isinstance(value, kinds):
                    raise InputError(
                        f"entry {number} of {table} in {path} has no valid {key!r}: {value!r:.80}"
                    )
    for number, entry in enumerate(content["annotations"]):
        box = entry["bbox"]
        if len(box) != 4 or not all(isinstance(v, (int, float)) for v in box):
            raise InputError(
                f"entry {number} of annotations in {path} has no box of four numbers: {box!r:.80}"
            )
    for number, entry in enumerate(content["images"]):
        sizes = [entry.get(key) or 0 for key in ("height", "width")]
        if not all(isinstance(size, int) and 0 <= size < 1 << 31 for size in sizes):
            raise InputError(f"entry {number} of images in {path} has the size {sizes!r:.80}")
    for table in ("categories", "annotations"):  # ids of one kind can be sorted
        kinds = {type(entry["id" if table == "categories" else "category_id"])
                 for entry in content[table]}  # fmt: skip
        if len(kinds) > 1:
            raise InputError(f"{path} has category ids that are numbers and others that are text")


def open_coco(path: Path, categories: dict[int, str]) -> BoxSamples:
    """The images of a COCO file.

    Args:
        categories: names by id; classes are numbered in this order.

    Raises:
        InputError: unknown categories, an annotation of an image that is not listed, or files
            that are not there.
    """
    content = read_json(path)
    check_entries(path, content)
    index = {key: i for i, key in enumerate(categories)}
    folder = _image_folder(path, content)
    entries: dict[Any, Annotations] = {}
    for image in content["images"]:
        size = None
        if image.get("height") and image.get("width"):
            size = int(image["height"]), int(image["width"])
        entries[image["id"]] = Annotations(folder / image["file_name"], image["id"], size=size)
    masks = any(entry.get("segmentation") for entry in content["annotations"])
    for annotation in content["annotations"]:
        entry = entries.get(annotation["image_id"])
        if entry is None:
            raise InputError(
                f"{path} has an annotation of image {annotation['image_id']}, which it does not "
                "list"
            )
        if annotation["category_id"] not in index:
            raise InputError(
                f"{path} has category {annotation['category_id']}, which the training data do not "
                f"have: {sorted(index)[:10]}"
            )
        x, y, width, height = annotation["bbox"]
        entry.boxes.append((x, y, x + width, y + height))
        entry.labels.append(index[annotation["category_id"]])
        entry.crowd.append(bool(annotation.get("iscrowd", 0)))
        if masks:
            entry.segmentations.append(annotation.get("segmentation"))
    return BoxSamples(list(entries.values()), path.parent, decode_mask if masks else None)


def _image_folder(path: Path, content: dict[str, Any]) -> Path:
    """Where the first image of the file is."""
    if not content["images"]:
        raise InputError(f"{path} lists no images")
    name = content["images"][0]["file_name"]
    split = path.stem.removeprefix("instances_")
    above = path.parent.parent if path.parent.name == "annotations" else path.parent
    places = [above, above / "images", above / split, above / "images" / split, above / path.stem]
    for place in places:
        if (place / name).is_file():
            return place
    raise InputError(
        f"there is no image {name}, which {path} lists, in {', '.join(map(str, places[:4]))}"
    )


def decode_mask(segmentation: Any, height: int, width: int) -> np.ndarray:
    """A segmentation (polygons, or run lengths compressed or not) as a mask (H, W) of 0 and 1."""
    if not segmentation:
        raise InputError("an object has no segmentation although others have; give all of them one")
    coder = require("faster_coco_eval.core.mask", extra="detection")
    if isinstance(segmentation, list):
        runs = coder.merge(coder.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation["counts"], list):
        if sum(segmentation["counts"]) != segmentation["size"][0] * segmentation["size"][1]:
            raise ValueError("its run lengths do not add up to its size")
        runs = coder.frPyObjects(segmentation, *segmentation["size"])
    else:
        runs = segmentation
    return coder.decode(runs)


def encode_mask(mask_HW: np.ndarray) -> dict[str, Any]:
    """A mask as compressed run lengths: {"size": [H, W], "counts": text}."""
    coder = require("faster_coco_eval.core.mask", extra="detection")
    runs = coder.encode(np.asfortranarray(mask_HW, dtype=np.uint8))
    return {"size": list(runs["size"]), "counts": runs["counts"].decode()}
