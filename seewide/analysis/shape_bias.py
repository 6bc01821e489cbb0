"""Shape bias: whether a classifier follows shape or texture where the two disagree.

Geirhos et al. (arXiv 1811.12231) made images of 16 everyday classes with the shape of one class
and, by style transfer, the texture of another. A prediction of the former is a shape decision, of
the latter a texture decision; other predictions are ignored.

    shape bias = shape decisions / (shape decisions + texture decisions)

A model of ImageNet's 1000 classes decides by the mean of its probabilities over the ImageNet
classes below each of the 16 in WordNet (Geirhos et al. 2021, arXiv 2106.07411); a model with 16
outputs by the largest, with the classes in alphabetical order. Of the 1280 published images, the 80
with the same shape and texture are excluded.
"""

from __future__ import annotations

import csv
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from seewide.analysis.images import load_image
from seewide.errors import InputError

CLASSES = (
    "airplane", "bear", "bicycle", "bird", "boat", "bottle", "car", "cat", "chair", "clock", "dog",
    "elephant", "keyboard", "knife", "oven", "truck",
)  # fmt: skip

# ImageNet's classes below each of the 16, as selected by Geirhos et al., who removed ambiguous ones
# (the microwave is no oven). WordNet ids; dogs and birds are ranges of indices of the 1000 classes.
WORDNET = {
    "airplane": "n02690373",
    "bear": "n02132136 n02133161 n02134084 n02134418",
    "bicycle": "n02835271 n03792782",
    "boat": "n02951358 n03344393 n03662601 n04273569 n04612504",
    "bottle": "n02823428 n03937543 n03983396 n04557648 n04560804 n04579145 n04591713",
    "car": "n02814533 n03100240 n04285008",
    "cat": "n02123045 n02123159 n02123394 n02123597 n02124075 n02125311",
    "chair": "n02791124 n03376595 n04099969 n04429376",
    "clock": "n02708093 n03196217 n04548280",
    "elephant": "n02504013 n02504458",
    "keyboard": "n03085013 n04505470",
    "knife": "n03041632",
    "oven": "n04111531",
    "truck": "n03345487 n03417042 n03770679 n03796401 n03930630 n03977966 n04461696 n04467665",
}
INDICES = {
    "bird": "8 10-16 18-20 22-24 80-83 87-96 98-100 127-133 135-145",
    "dog": "152-191 193-203 205-226 228-241 243-250 252-257 259 261-263 265-268",
}

# In percent: Geirhos et al. 2019 (arXiv 1811.12231) on the PNG originals; AlexNet,
# VGG-16 and GoogLeNet with Caffe's weights, ResNet-50 with torchvision's.
PUBLISHED = {"humans": 95.9, "AlexNet": 42.9, "VGG-16": 17.2, "GoogLeNet": 31.2, "ResNet-50": 22.1}


@cache
def imagenet_to_16() -> tuple[tuple[int, ...], ...]:
    """For each of CLASSES, the indices of its classes among ImageNet's 1000."""
    from timm.data import ImageNetInfo

    index = {name: i for i, name in enumerate(ImageNetInfo().label_names())}
    members = {c: tuple(index[wnid] for wnid in ids.split()) for c, ids in WORDNET.items()}
    for name, ranges in INDICES.items():
        spans = [span.partition("-") for span in ranges.split()]
        members[name] = tuple(
            i for first, _, last in spans for i in range(int(first), int(last or first) + 1)
        )
    return tuple(members[name] for name in CLASSES)


def decide(logits_NK: Tensor) -> list[str]:
    """The predicted class, one of CLASSES, of each row.

    Args:
        logits_NK: (N, 1000) of an ImageNet classifier, or (N, 16) of a classifier of CLASSES.

    Raises:
        InputError: another shape.
    """
    if logits_NK.ndim != 2 or logits_NK.shape[1] not in (16, 1000):
        raise InputError(
            f"shape bias needs outputs for ImageNet's 1000 classes or the 16, got outputs of shape "
            f"{tuple(logits_NK.shape)}"
        )
    shares = logits_NK.float().softmax(1)
    if shares.shape[1] == 1000:
        members = imagenet_to_16()
        shares = torch.stack([shares[:, list(indices)].mean(1) for indices in members], dim=1)
    return [CLASSES[i] for i in shares.argmax(1).tolist()]


@dataclass(frozen=True)
class Decisions:
    """Numbers of decisions for shape, for texture and for neither."""

    shape: int = 0
    texture: int = 0
    neither: int = 0

    @property
    def bias(self) -> float:
        """Shape bias, 0 to 1; NaN without any decision for shape or texture."""
        decided = self.shape + self.texture
        return self.shape / decided if decided else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """95% confidence interval of `bias` (Wilson 1927), assuming independent images."""
        n = self.shape + self.texture
        if not n:
            return 0.0, 1.0
        z = 1.959964
        middle = (self.bias + z**2 / (2 * n)) / (1 + z**2 / n)
        half = z / (1 + z**2 / n) * math.sqrt(self.bias * (1 - self.bias) / n + (z / n / 2) ** 2)
        return max(middle - half, 0.0), min(middle + half, 1.0)

    @property
    def decided(self) -> float:
        """Share of images with a decision for shape or texture, 0 to 1."""
        total = self.shape + self.texture + self.neither
        return (self.shape + self.texture) / total if total else math.nan


@dataclass(frozen=True)
class ShapeBias:
    """Decisions for all images (`total`) and by the class of the shape (`classes`)."""

    total: Decisions
    classes: Mapping[str, Decisions]

    def rows(self) -> list[tuple[str, int, int, int, float, float, float]]:
        """(class, shape, texture, neither, bias, low, high), total last; the last three 0..1."""
        return [
            (name, d.shape, d.texture, d.neither, d.bias, *d.interval)
            for name, d in [*self.classes.items(), ("all", self.total)]
        ]

    def __str__(self) -> str:
        low, high = self.total.interval
        return f"{self.total.bias:.1%} (95% interval {low:.1%} to {high:.1%})"


def shape_bias(
    decisions: Iterable[str], shapes: Iterable[str], textures: Iterable[str]
) -> ShapeBias:
    """Count the decisions for images of known shape and texture.

    Raises:
        InputError: a class that is not one of the 16, or sequences of different lengths.
    """
    counts = {name: [0, 0, 0] for name in CLASSES}
    try:
        for triple in zip(decisions, shapes, textures, strict=True):
            for name in triple:
                if name not in counts:
                    raise InputError(f"the classes are {', '.join(CLASSES)}, got {name!r}")
            decision, shape, texture = triple
            if shape != texture:
                counts[shape][0 if decision == shape else 1 if decision == texture else 2] += 1
    except ValueError as error:
        if isinstance(error, InputError):
            raise
        raise InputError("decisions, shapes and textures must have the same length") from None
    classes = {name: Decisions(*three) for name, three in counts.items() if sum(three)}
    total = Decisions(*(sum(three) for three in zip(*counts.values(), strict=True)))
    return ShapeBias(total, classes)


@dataclass(frozen=True)
class CueConflict:
    """A cue-conflict image: its file and the classes of its shape and its texture."""

    path: Path
    shape: str
    texture: str


def list_cue_conflicts(folder: str | os.PathLike) -> list[CueConflict]:
    """The cue-conflict images in a folder with different shape and texture.

    They are listed in `labels.csv` (columns file, shape, texture) or, without this file, named as
    published: `SHAPE/SHAPEn-TEXTUREm.png`, in the folder or its subfolders.

    Raises:
        InputError: no such folder, no such image in it, or a table without these columns.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    table = folder / "labels.csv"
    if table.is_file():
        with table.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        missing = {"file", "shape", "texture"} - set(rows[0] if rows else ())
        if missing:
            raise InputError(f"{table} has no column {', '.join(sorted(missing))}")
        found = [CueConflict(folder / r["file"], r["shape"], r["texture"]) for r in rows]
    else:
        named = re.compile(r"([a-z]+)\d*-([a-z]+)\d*")
        matches = ((p, named.fullmatch(p.stem)) for p in sorted(folder.rglob("*-*.*")))
        found = [CueConflict(path, *match.groups()) for path, match in matches if match]
    conflicts = [c for c in found if c.shape != c.texture and {c.shape, c.texture} <= {*CLASSES}]
    if not conflicts:
        raise InputError(
            f"{folder} contains no cue-conflict image; they are named like cat/cat7-elephant1.png, "
            f"or listed in labels.csv with the columns file, shape, texture"
        )
    return conflicts


@torch.inference_mode()
def measure_shape_bias(
    classify: Callable[[Tensor], Tensor],
    conflicts: Sequence[CueConflict],
    transform: Callable[[Image.Image], Tensor],
    batch: int = 32,
    progress: Callable[[], object] = lambda: None,
) -> ShapeBias:
    """Shape bias of a classifier; one batch of images is in memory at a time.

    Args:
        classify: (N, 3, H, W) -> (N, 1000) or (N, 16), in evaluation mode.
        conflicts: of `list_cue_conflicts`.
        transform: RGB image -> (3, H, W), cropped and normalized.
        batch: images per forward pass.
        progress: called after each image.

    Raises:
        InputError: an image that cannot be read, or another number of outputs.
    """
    decisions, rest = [], iter(conflicts)
    while group := list(itertools.islice(rest, batch)):
        x_NCHW = torch.stack([transform(load_image(conflict.path)) for conflict in group])
        decisions += decide(classify(x_NCHW))
        for _ in group:
            progress()
    return shape_bias(decisions, [c.shape for c in conflicts], [c.texture for c in conflicts])


def draw_shape_bias(
    results: Mapping[str, ShapeBias],
    path: str | os.PathLike,
    published: Mapping[str, float] = PUBLISHED,
) -> Path:
    """The figure of Geirhos et al.: a row per class, shape on the left, texture on the right.

    A point per model and class, a vertical line at the total of each model with its 95% interval,
    and dotted lines for published values.

    Args:
        results: model name -> shape bias.
        path: of the figure.
        published: name -> shape bias in percent.

    Raises:
        InputError: no results.
    """
    from seewide.analysis import figures

    if not results:
        raise InputError("no shape bias to draw")
    rows: Sequence[str] = [c for c in CLASSES if any(c in r.classes for r in results.values())]
    with figures.style():
        figure, (axis,) = figures.canvas(1, 1, 7.6, 1.8 + 0.3 * len(rows))
        palette = figures.colors(len(results))
        for color, (name, result) in zip(palette, results.items(), strict=True):
            low, high = result.total.interval
            axis.axvspan(100 * low, 100 * high, color=color, alpha=0.15, linewidth=0)
            axis.axvline(100 * result.total.bias, color=color, linewidth=2,
                         label=figures.plain(f"{name}: {result.total.bias:.1%}"))  # fmt: skip
            points = [(100 * result.classes[c].bias, i) for i, c in enumerate(rows)
                     if c in result.classes and not math.isnan(result.classes[c].bias)]  # fmt: skip
            x, y = zip(*points, strict=True) if points else ((), ())
            axis.scatter(x, y, color=color, s=36, zorder=3, edgecolor="white", linewidth=0.6)
        for name, percent in published.items():
            axis.axvline(percent, color=figures.FAINT, linewidth=1, linestyle=":")
            axis.annotate(figures.plain(name), (percent, 1), xytext=(0, 3),
                          xycoords=("data", "axes fraction"),
                          textcoords="offset points", rotation=45, fontsize=7,
                          color=figures.INK)  # fmt: skip
        axis.set_yticks(range(len(rows)), rows)
        axis.set_ylim(len(rows) - 0.5, -0.5)
        axis.set_xlim(102, -2)  # shape is on the left, as in the paper
        axis.set_xlabel("shape bias (%): shape decisions among decisions for shape or texture")
        axis.grid(axis="y")
        axis.tick_params(length=0)
        figure.legend(loc="outside lower center", ncols=2, fontsize=9)
        return figures.save(figure, path)
