"""Robustness: ImageNet-C and its mCE, and ImageNet-A, -R and -Sketch, on folders.

The corruption error of a corruption is its error summed over five severities, over AlexNet's; mCE
is the mean over the fifteen (Hendrycks and Dietterich, arXiv 1903.12261, section 4):

    CE_c = sum over s of E_(s, c) / sum over s of E_(s, c) of AlexNet,    mCE = mean over c of CE_c

so AlexNet has 100%, and less is better. The other sets have pictures of some of ImageNet's classes;
a network of 1000 outputs decides among those (ImageNet-A, arXiv 1907.07174, and -R, arXiv
2006.16241: 200 classes each; -Sketch, arXiv 1905.13549: all).

All of it streams: one batch of pictures is in memory at a time.
"""

from __future__ import annotations

import itertools
import os
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from seewide.analysis.corruptions import CORRUPTIONS, corrupt
from seewide.analysis.images import list_pictures, open_picture
from seewide.analysis.subject import Progress
from seewide.errors import InputError, unknown

# Percent, means over the severities, of torchvision's AlexNet: arXiv 1903.12261, Table 1's norm.
ALEXNET = {
    "gaussian_noise": 88.6, "shot_noise": 89.4, "impulse_noise": 92.3, "defocus_blur": 82.0,
    "glass_blur": 82.6, "motion_blur": 78.6, "zoom_blur": 79.8, "snow": 86.7, "frost": 82.7,
    "fog": 81.9, "brightness": 56.5, "contrast": 85.3, "elastic_transform": 64.6,
    "pixelate": 71.8, "jpeg_compression": 60.7,
}  # fmt: skip
SEVERITIES = (1, 2, 3, 4, 5)
SUBSETS = {
    "imagenet-a": "imagenet_a_synsets.txt",
    "imagenet-r": "imagenet_r_synsets.txt",
    "imagenet-sketch": "imagenet_synsets.txt",
}

Transform = Callable[[Image.Image], Tensor]  # a picture -> (3, H, W), normalized
Classify = Callable[[Tensor], Tensor]  # (N, 3, H, W) -> (N, classes)


@dataclass(frozen=True)
class CorruptionErrors:
    """`errors[corruption]`: percent wrong at severities 1 to 5; `clean`: without corruption."""

    errors: Mapping[str, Sequence[float]]
    clean: float | None = None

    def error(self, name: str) -> float:
        """Percent, mean over the severities."""
        return float(np.mean(self.errors[name]))

    def corruption_error(self, name: str) -> float:
        """CE: percent of AlexNet's."""
        return 100 * self.error(name) / ALEXNET[name]

    @property
    def mce(self) -> float:
        """Mean corruption error in percent.

        Raises:
            InputError: not all fifteen corruptions were measured.
        """
        missing = [name for name in ALEXNET if name not in self.errors]
        if missing:
            raise InputError(f"mCE is of fifteen corruptions, {', '.join(missing)} is missing")
        return float(np.mean([self.corruption_error(name) for name in ALEXNET]))

    def __str__(self) -> str:
        """mCE, or what can be said where some of the fifteen are missing."""
        missing = [name for name in ALEXNET if name not in self.errors]
        if not missing:
            return f"mCE {self.mce:.1f}%"
        mean = np.mean([self.corruption_error(name) for name in self.errors])
        most = f"{len(self.errors)} of {len(ALEXNET)} corruptions"
        return f"mean CE {mean:.1f}% over {most}, without {', '.join(missing)}"

    def rows(self) -> list[tuple]:
        """(corruption, error at severity 1, ..., 5, mean, CE), all in percent."""
        return [
            (name, *errors, self.error(name), self.corruption_error(name))
            for name, errors in self.errors.items()
        ]


def corruption_errors(
    classify: Classify,
    pictures: Sequence[tuple[Path, int]],
    crop: Callable[[Image.Image], Image.Image],
    transform: Transform,
    corruptions: Iterable[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    batch: int = 32,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> CorruptionErrors:
    """Corrupt clean pictures on the fly and count mistakes.

    Args:
        classify: the network, in evaluation mode.
        pictures: (file, class) of each.
        crop: what comes before the corruption: ImageNet-C was corrupted after resizing to 256 and
            cutting out 224 x 224.
        transform: what comes after it.
        corruptions: names in CORRUPTIONS.
        batch: pictures at once.
        seed: chance is drawn from (seed, corruption, severity, number of the picture), so that the
            result depends on none of batch size, order of the corruptions, or what else is asked.
        progress: called after each picture of each corruption and severity.
    """
    names = list(corruptions)
    for name in names:
        if name not in CORRUPTIONS:
            raise unknown("corruption", name, CORRUPTIONS)
    order = list(CORRUPTIONS)
    kinds = [None, *itertools.product(names, severities)]
    wrong = dict.fromkeys(kinds, 0)

    def versions(kind) -> Iterator[tuple[Tensor, int]]:
        for number, (path, label) in enumerate(pictures):
            picture = crop(open_picture(path))
            if kind is not None:
                name, severity = kind
                rng = np.random.default_rng([seed, order.index(name), severity, number])
                picture = corrupt(picture, name, severity, rng)
            yield transform(picture), label
            progress()

    for kind in kinds:
        wrong[kind] = _mistakes(classify, versions(kind), batch)
    share = 100 / max(len(pictures), 1)
    errors = {name: [share * wrong[name, s] for s in severities] for name in names}
    return CorruptionErrors(errors, clean=share * wrong[None])


def list_imagenet_c(folder: str | os.PathLike) -> dict[tuple[str, int], Path]:
    """The folders of a downloaded ImageNet-C: `CORRUPTION/SEVERITY/WNID/...`.

    Raises:
        InputError: no such folder, or none of its kind below it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"there is no folder {folder}")
    found = {
        (name, severity): path
        for name, severity in itertools.product(CORRUPTIONS, SEVERITIES)
        if (path := folder / name / str(severity)).is_dir()
    }
    if not found:
        raise InputError(f"{folder} holds no CORRUPTION/SEVERITY, such as gaussian_noise/1")
    return found


def imagenet_c_errors(
    classify: Classify,
    folders: Mapping[tuple[str, int], Path],
    transform: Transform,
    batch: int = 32,
    images: int | None = None,
    progress: Progress = lambda what, steps: lambda: None,
) -> CorruptionErrors:
    """Count mistakes on the published pictures.

    Args:
        classify: a network of ImageNet's 1000 classes, in evaluation mode.
        folders: what `list_imagenet_c` found.
        transform: a picture, which is 224 x 224 already, -> (3, H, W).
        images: so many of each folder, at even distances; default: all.
        progress: told what is measured, and called after each picture.

    Raises:
        InputError: a corruption without all five severities, which has no mean.
    """
    errors: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for name, _ in folders):
        missing = [s for s in SEVERITIES if (name, s) not in folders]
        if missing:
            raise InputError(f"{name} has no folder for severity {', '.join(map(str, missing))}")
    for (name, severity), folder in folders.items():
        pictures = evenly(list_labelled(folder), images)
        step = progress(f"{name} {severity}", len(pictures))
        items = _prepared(pictures, transform, step)
        share = 100 / len(pictures)
        wrong = _mistakes(lambda x: _of_imagenet(classify(x)), items, batch)
        errors.setdefault(name, []).append(share * wrong)
    return CorruptionErrors(errors)


def evenly(items: Sequence, count: int | None) -> Sequence:
    """So many of them at even distances; all, where there are no more or none is said."""
    if count is None or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


@cache
def subset_indices(name: str) -> tuple[int, ...]:
    """Which of ImageNet's 1000 classes a set has pictures of; "imagenet-a", "-r" or "-sketch"."""
    if name not in SUBSETS:
        raise unknown("set of pictures", name, SUBSETS)
    wnids = pkgutil.get_data("timm.data", f"_info/{SUBSETS[name]}").decode().split()
    return tuple(imagenet_index()[wnid] for wnid in wnids)


@cache
def imagenet_index() -> dict[str, int]:
    """WordNet id -> class among ImageNet's 1000."""
    from timm.data import ImageNetInfo

    return {wnid: i for i, wnid in enumerate(ImageNetInfo().label_names())}


def list_labelled(folder: str | os.PathLike) -> list[tuple[Path, int]]:
    """(file, ImageNet class) of pictures in folders named by WordNet ids.

    Raises:
        InputError: no such folder, no picture, or a folder of another name.
    """
    index = imagenet_index()
    labelled = []
    for path in list_pictures(folder):
        wnid = path.relative_to(folder).parts[0]
        if wnid not in index:
            raise InputError(
                f"{folder} must have folders named by ImageNet's WordNet ids, such as n01440764, "
                f"got {wnid}"
            )
        labelled.append((path, index[wnid]))
    return labelled


def subset_error(
    classify: Classify,
    pictures: Sequence[tuple[Path, int]],
    transform: Transform,
    among: Sequence[int],
    batch: int = 32,
    progress: Callable[[], object] = lambda: None,
) -> float:
    """Percent wrong of a network of 1000 outputs that decides among some of its classes.

    Args:
        pictures: (file, class of the 1000) of each.
        among: classes that can be decided for: `subset_indices("imagenet-a")`.
    """
    if not pictures:
        raise InputError("no pictures to classify")
    place = {label: i for i, label in enumerate(among)}
    for path, label in pictures:
        if label not in place:
            raise InputError(f"{path} is of class {label}, which is none of the {len(place)}")

    chosen = torch.tensor(among)

    def restricted(x: Tensor) -> Tensor:
        logits = _of_imagenet(classify(x))
        return logits[:, chosen.to(logits.device)]

    items = _prepared([(path, place[label]) for path, label in pictures], transform, progress)
    return 100 * _mistakes(restricted, items, batch) / len(pictures)


def _of_imagenet(logits: Tensor) -> Tensor:
    if logits.shape[1] != 1000:
        raise InputError(
            f"a network of ImageNet's 1000 classes is needed, this has {logits.shape[1]}"
        )
    return logits


def _prepared(
    pictures: Iterable[tuple[Path, int]], transform: Transform, progress: Callable[[], object]
) -> Iterator[tuple[Tensor, int]]:
    for path, label in pictures:
        yield transform(open_picture(path)), label
        progress()


@torch.inference_mode()
def _mistakes(classify: Classify, items: Iterable[tuple[Tensor, int]], batch: int) -> int:
    items, wrong = iter(items), 0
    while group := list(itertools.islice(items, batch)):
        x, labels = zip(*group, strict=True)
        said = classify(torch.stack(x)).argmax(1).cpu()
        wrong += int((said != torch.tensor(labels)).sum())
    return wrong


def draw_corruptions(results: Mapping[str, CorruptionErrors], path: str | os.PathLike) -> Path:
    """Error over severity, a panel per corruption, a line per network."""
    from seewide.analysis import pictures

    names = [n for n in CORRUPTIONS if any(n in result.errors for result in results.values())]
    if not names:
        raise InputError("no corruption errors to draw")
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    with pictures.style():
        figure, axes = pictures.canvas(rows, columns, 2.1 * columns, 1.9 * rows + 0.6)
        for axis in axes[len(names) :]:
            axis.set_axis_off()
        palette = pictures.colours(len(results))
        for axis, name in zip(axes, names, strict=False):
            for colour, (label, result) in zip(palette, results.items(), strict=True):
                if name in result.errors:
                    errors = result.errors[name]
                    steps = range(1, len(errors) + 1)
                    if result.clean is not None:
                        steps, errors = range(len(errors) + 1), [result.clean, *errors]
                    axis.plot(steps, errors, color=colour, label=label, marker="o", markersize=3)
            axis.set_title(name.replace("_", " "), fontsize=9, pad=4)
            axis.set_ylim(0, 100)
            axis.set_xticks(range(6))
            axis.tick_params(labelsize=7)
            axis.grid(axis="y")
        axes[0].set_ylabel("error (%)", fontsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
        return pictures.save(figure, path)
