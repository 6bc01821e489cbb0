"""Pascal VOC: boxes in `Annotations/*.xml`, lists in `ImageSets/Main/{train,val}.txt`.

Its corners count pixels from 1 and include the last one: x1 - 1, y1 - 1, x2, y2 here.
"""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from seewide.errors import InputError

from .boxes import Annotations, BoxSamples


def find_voc(folder: Path) -> tuple[Path, Path] | None:
    """The lists of training and validation images; None if this is not VOC's layout."""
    lists = [folder / "ImageSets" / "Main" / f"{name}.txt" for name in ("train", "val")]
    if (folder / "Annotations").is_dir() and all(file.is_file() for file in lists):
        return lists[0], lists[1]
    return None


def open_voc(folder: Path, names: list[str] | None = None) -> tuple[BoxSamples, list[str]]:
    """The images of a list, and the class names.

    Args:
        folder: the list; images and annotations are beside `ImageSets`.
        names: of the classes; None: all that the annotations have, sorted.

    Raises:
        InputError: a file is missing or is no annotation, or has a class that `names` has not.
    """
    root = folder.parents[2]
    parsed = [_parse(root, line.split()[0]) for line in folder.read_text().split("\n") if line]
    found = sorted({name for _, objects in parsed for name, _ in objects})
    if names is None:
        names = found
    if wrong := [name for name in found if name not in names]:
        raise InputError(f"{folder} has class {wrong[0]!r}, which the training data do not have")
    for entry, objects in parsed:
        for name, box in objects:
            entry.boxes.append(box)
            entry.labels.append(names.index(name))
            entry.crowd.append(False)
    return BoxSamples([entry for entry, _ in parsed], root), names


def _parse(root: Path, name: str) -> tuple[Annotations, list[tuple[str, tuple[float, ...]]]]:
    path = root / "Annotations" / f"{name}.xml"
    try:
        tree = ElementTree.parse(path).getroot()
        size = tuple(int(tree.findtext(f"size/{side}")) for side in ("height", "width"))
        image = root / "JPEGImages" / (tree.findtext("filename") or f"{name}.jpg")
        objects = []
        for item in tree.iter("object"):
            x1, y1, x2, y2 = (
                float(item.findtext(f"bndbox/{side}")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            objects.append((item.findtext("name"), (x1 - 1, y1 - 1, x2, y2)))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}") from None
    except (ElementTree.ParseError, TypeError, ValueError) as error:
        raise InputError(f"{path} is not an annotation of VOC: {error}") from None
    return Annotations(image, name, size=size), objects
