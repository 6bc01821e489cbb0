"""Data for referring segmentation: what `--data` names, and how each layout is opened.

Layouts: `train.json` and `val.json` with `images` and `refs` (`image`, `expression`, `mask`), and
folders `images/` and `masks/`; Refer-DAVIS 2017: `JPEGImages/480p/<video>/00000.jpg`,
`Annotations/480p/<video>/00000.png` of object numbers, and expressions in `Davis17_annot*.txt` or
in `meta_expressions/{train,valid}/meta_expressions.json`; `shapes`: generated, see `shapes.py`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .images import open_image, read_image, verify_image
from .samples import Sample, Samples
from .shapes import SHAPES, ShapeSamples, generate_shapes

LAYOUTS = (
    f"a folder with train.json and val.json of images, expressions and masks, Refer-DAVIS, or "
    f"`{SHAPES}`"
)
LINE = re.compile(r'^(\S+)\s+(\d+)\s+"?(.*?)"?\s*$')


@dataclass(frozen=True)
class Reference:
    """An expression for an object of an image, or of a frame of a video.

    Attributes:
        image, mask: paths.
        expression: the sentence.
        value: of the object's pixels in the mask; 0: all that are not zero.
        group: what is averaged first: the expression of a video, or this one alone.
        kind: for tables, such as `location`.
    """

    image: Path
    mask: Path
    expression: str
    value: int = 0
    group: tuple[str, ...] = ()
    kind: str = ""


class ReferringSamples(Samples):
    """`{"image": RGB PIL image, "mask": bool (H, W), "expression", "group", "kind"}`."""

    def __init__(self, references: Sequence[Reference], folder: Path) -> None:
        self.references, self.folder = list(references), folder

    def __len__(self) -> int:
        return len(self.references)

    def __getitem__(self, index: int) -> Sample:
        ref = self.references[index]
        image, mask = read_image(ref.image), read_mask(ref.mask, ref.value)
        if mask.shape != (image.height, image.width):
            raise InputError(
                f"{ref.mask} has {mask.shape[1]} x {mask.shape[0]} pixels, its image "
                f"{image.width} x {image.height}"
            )
        return {
            "image": image,
            "mask": mask,
            "expression": ref.expression,
            "group": ref.group,
            "kind": ref.kind,
        }

    def verify(self, index: int) -> None:
        verify_image(self.references[index].image)
        verify_image(self.references[index].mask)

    def names(self) -> Iterable[str]:
        for ref in self.references:
            yield f"{os.path.relpath(ref.image, self.folder)}:{ref.value}:{ref.expression}"

    def expressions(self) -> list[str]:
        return [ref.expression for ref in self.references]


@dataclass(frozen=True)
class ReferringData:
    """Expressions with masks.

    Attributes:
        name: opens the same data again from any working directory.
        train, val: samples, see `ReferringSamples`.
        held_out: in words, where `val` comes from.
        videos: whether samples are frames of videos.
        in_memory: whether nothing is read from a disk.
    """

    name: str
    train: ReferringSamples | ShapeSamples
    val: ReferringSamples | ShapeSamples
    held_out: str
    videos: bool
    in_memory: bool = False


def read_mask(path: Path, value: int = 0) -> np.ndarray:
    """(H, W), True where the mask file has `value`, or anything but 0.

    Raises:
        InputError: no such file, or one that is no image of one channel.
    """

    def pixels(image) -> np.ndarray:
        found = np.asarray(image.convert("L") if image.mode in ("1", "LA") else image)
        if found.ndim != 2:
            raise ValueError(f"a mask has one channel, this image has mode {image.mode}")
        return found == value if value else found > 0

    return open_image(path, pixels)


def describe_referring(data: str) -> str | None:
    """What there is at `data` for referring segmentation, in words; None if nothing is."""
    if data == SHAPES:
        return "generated shapes with expressions"
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        return None
    if _davis_expressions(folder):
        return "videos with expressions in Refer-DAVIS' layout"
    path = folder / "train.json"
    if not (path.is_file() and (folder / "masks").is_dir()):
        return None
    try:
        return f"images with {len(_refs(path))} expressions"
    except InputError:
        return None


def open_referring(data: str | Path, expressions: str = "full_video") -> ReferringData:
    """Expressions to train on and held-out ones.

    Args:
        data: a folder, see the module, or `shapes`.
        expressions: of Refer-DAVIS, `full_video` or `first_frame`: what the annotators had seen.

    Raises:
        InputError: no such data, files that do not fit together, or no expressions.
    """
    if data == SHAPES:
        train, val = generate_shapes(320, seed=0), generate_shapes(80, seed=1, unseen=True)
        words = "80 generated images, half of them with pairs of color and shape not trained on"
        return ReferringData(SHAPES, train, val, words, False, True)
    folder = Path(os.path.expanduser(data))
    if not folder.is_dir():
        raise InputError(f"there is no folder {data}; referring data is {LAYOUTS}")
    folder = folder.resolve()
    if _davis_expressions(folder):
        return _davis(folder, expressions)
    parts = []
    for part in ("train", "val"):
        path = folder / f"{part}.json"
        if not path.is_file():
            raise InputError(f"there is no {path}; referring data is {LAYOUTS}")
        found = [
            Reference(
                folder / "images" / ref["image"],
                folder / "masks" / ref["mask"],
                ref["expression"],
                group=(part, str(number)),
                kind=str(ref.get("kind", "")),
            )
            for number, ref in enumerate(_refs(path))
        ]
        parts.append(ReferringSamples(found, folder))
    return ReferringData(str(folder), *parts, "val.json", False)


def _refs(path: Path) -> list[dict]:
    """The `refs` of a JSON file.

    Raises:
        InputError: it is not of this layout, or has none.
    """
    try:
        refs = json.loads(path.read_text(encoding="utf-8"))["refs"]
        for ref in refs:
            if not (isinstance(ref["expression"], str) and ref["expression"].strip()):
                raise InputError(f"{path} has an empty expression for {ref['image']}")
            Path(ref["image"]), Path(ref["mask"])
    except (ValueError, KeyError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f'{path} is not a list of expressions, {{"refs": [{{"image", "expression", "mask"}}]}}'
        ) from None
    if not refs:
        raise InputError(f"{path} has no expressions")
    return refs


# ---- Refer-DAVIS


def _davis_expressions(folder: Path) -> list[Path]:
    """The files of expressions, if the frames and annotations of DAVIS are there too."""
    if not (folder / "JPEGImages").is_dir() or not (folder / "Annotations").is_dir():
        return []
    found = sorted(folder.glob("**/Davis17_annot*.txt"))
    return found or sorted(folder.glob("meta_expressions/*/meta_expressions.json"))


def _davis(folder: Path, expressions: str) -> ReferringData:
    if expressions not in ("full_video", "first_frame"):
        raise InputError(f"expressions must be full_video or first_frame, got {expressions!r}")
    train, val = (_davis_videos(folder, part) for part in ("train", "val"))
    files = _davis_expressions(folder)
    lines: list[tuple[str, str, int, str]] = []  # annotator, video, object, expression
    if files[0].suffix == ".json":
        for path in files:
            lines += _davis_json(path)
    else:
        full = expressions == "full_video"
        files = [path for path in files if ("full_video" in path.stem) == full]
        if not files:
            raise InputError(f"{folder} has no expressions of {expressions}")
        for path in files:
            lines += _davis_text(path)

    def of(videos: Sequence[str]) -> ReferringSamples:
        wanted = set(videos)
        references = [
            Reference(image, mask, sentence, number, (video, str(number), annotator))
            for annotator, video, number, sentence in lines
            if video in wanted
            for image, mask in _davis_frames(folder, video)
        ]
        if not references:
            raise InputError(f"{folder} has no expressions for the videos {', '.join(videos[:3])}")
        return ReferringSamples(references, folder)

    return ReferringData(str(folder), of(train), of(val), f"{len(val)} validation videos", True)


def _davis_videos(folder: Path, part: str) -> list[str]:
    path = folder / "ImageSets" / "2017" / f"{part}.txt"
    if not path.is_file():
        raise InputError(f"there is no {path}, the list of DAVIS' {part} videos")
    return path.read_text().split()


def _davis_frames(folder: Path, video: str) -> list[tuple[Path, Path]]:
    images = folder / "JPEGImages" / "480p" / video
    masks = folder / "Annotations" / "480p" / video
    if not images.is_dir() or not masks.is_dir():
        raise InputError(f"{folder} has no frames or no annotations of the video {video}")
    return [
        (image, masks / f"{image.stem}.png")
        for image in sorted(images.glob("*.jpg"))
        if (masks / f"{image.stem}.png").is_file()
    ]


def _davis_text(path: Path) -> list[tuple[str, str, int, str]]:
    """Lines `video object "expression"`; one of the four published files is in Latin-1."""
    content = path.read_bytes()
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    found = []
    for number, line in enumerate(filter(str.strip, text.splitlines()), 1):
        match = LINE.match(line)
        if not match or not match[3].strip():
            raise InputError(f'{path}, line {number} is not `video object "expression"`: {line!r}')
        found.append((path.stem, match[1], int(match[2]), match[3]))
    return found


def _davis_json(path: Path) -> list[tuple[str, str, int, str]]:
    """ReferFormer's file; its four annotations of an object are in the order of the annotators."""
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        found, seen = [], {}
        for video, entry in videos.items():
            for expression in entry["expressions"].values():
                number = int(expression["obj_id"])
                annotator = seen[video, number] = seen.get((video, number), -1) + 1
                found.append((f"annotator {annotator}", video, number, expression["exp"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise InputError(f"{path} is not a file of expressions as ReferFormer's") from None
    return found
