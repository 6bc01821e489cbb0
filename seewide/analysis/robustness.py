"""Robustness: error on ImageNet-C (mCE), ImageNet-A, -R and -Sketch.

The corruption error of a corruption is its error summed over five severities, over AlexNet's; mCE
is the mean over the fifteen (Hendrycks and Dietterich, arXiv 1903.12261, section 4):

    CE_c = sum over s of E_(s, c) / sum over s of E_(s, c) of AlexNet,    mCE = mean over c of CE_c

so AlexNet has 100%, and less is better. The other data sets have images of some of ImageNet's
classes, and a model with 1000 outputs chooses among those (ImageNet-A, arXiv 1907.07174, and -R,
arXiv 2006.16241: 200 classes each; -Sketch, arXiv 1905.13549: all).

One batch of images is in memory at a time.
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

from seewide.analysis.analyzed_model import Progress, no_progress
from seewide.analysis.corruptions import CORRUPTIONS, corrupt
from seewide.analysis.images import list_images, load_image
from seewide.errors import InputError, unknown

# AlexNet's errors in percent, means over the severities, by which CE is normalized (Table 1).
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

Transform = Callable[[Image.Image], Tensor]  # RGB image -> (3, H, W), normalized
Classify = Callable[[Tensor], Tensor]  # (N, 3, H, W) -> (N, classes)


@dataclass(frozen=True)
class CorruptionErrors:
    """Errors in percent.

    Attributes:
        errors: corruption -> errors at severities 1 to 5.
        clean: error without corruption, if measured.
    """

    errors: Mapping[str, Sequence[float]]
    clean: float | None = None

    def error(self, name: str) -> float:
        """Error in percent, mean over the severities."""
        return float(np.mean(self.errors[name]))

    def corruption_error(self, name: str) -> float:
        """CE: error in percent of AlexNet's."""
        return 100 * self.error(name) / ALEXNET[name]

    @property
    def mce(self) -> float:
        """Mean corruption error in percent.

        Raises:
            InputError: not all fifteen corruptions were measured.
        """
        missing = [name for name in ALEXNET if name not in self.errors]
        if missing:
            raise InputError(f"mCE needs all fifteen corruptions, missing: {', '.join(missing)}")
        return float(np.mean([self.corruption_error(name) for name in ALEXNET]))

    def __str__(self) -> str:
        """mCE, or the mean CE of the measured corruptions if some are missing."""
        missing = [name for name in ALEXNET if name not in self.errors]
        if not missing:
            return f"mCE {self.mce:.1f}%"
        mean = np.mean([self.corruption_error(name) for name in self.errors])
        count = f"{len(self.errors)} of {len(ALEXNET)} corruptions"
        return f"mean CE {mean:.1f}% over {count}, without {', '.join(missing)}"

    def rows(self) -> list[tuple]:
        """(corruption, error at severity 1, ..., 5, mean, CE), all in percent."""
        return [
            (name, *errors, self.error(name), self.corruption_error(name))
            for name, errors in self.errors.items()
        ]


def corruption_errors(
    classify: Classify,
    images: Sequence[tuple[Path, int]],
    crop: Callable[[Image.Image], Image.Image],
    transform: Transform,
    corruptions: Iterable[str] = tuple(CORRUPTIONS),
    severities: Sequence[int] = SEVERITIES,
    batch: int = 32,
    seed: int = 0,
    progress: Callable[[], object] = lambda: None,
) -> CorruptionErrors:
    """Errors of a model on images that are corrupted on the fly.

    Args:
        classify: the model, in evaluation mode.
        images: (file, class) of each image.
        crop: applied before the corruption. ImageNet-C was corrupted after resizing to 256 and
            cropping to 224 x 224.
        transform: applied after the corruption.
        corruptions: names in CORRUPTIONS.
        severities: of 1 to 5.
        batch: images per forward pass.
        seed: the random generator of an image is seeded with (seed, corruption, severity, index
            of the image), so that neither the batch size nor the other corruptions affect it.
        progress: called after each image of each corruption and severity.

    Raises:
        InputError: an unknown corruption, or an image that cannot be read.
    """
    names = list(corruptions)
    for name in names:
        if name not in CORRUPTIONS:
            raise unknown("corruption", name, CORRUPTIONS)
    order = list(CORRUPTIONS)
    kinds = [None, *itertools.product(names, severities)]
    wrong = dict.fromkeys(kinds, 0)

    def versions(kind) -> Iterator[tuple[Tensor, int]]:
        for index, (path, label) in enumerate(images):
            image = crop(load_image(path))
            if kind is not None:
                name, severity = kind
                rng = np.random.default_rng([seed, order.index(name), severity, index])
                image = corrupt(image, name, severity, rng)
            yield transform(image), label
            progress()

    for kind in kinds:
        wrong[kind] = _count_errors(classify, versions(kind), batch)
    share = 100 / max(len(images), 1)
    errors = {name: [share * wrong[name, s] for s in severities] for name in names}
    return CorruptionErrors(errors, clean=share * wrong[None])


def list_imagenet_c(folder: str | os.PathLike) -> dict[tuple[str, int], Path]:
    """The folders of a downloaded ImageNet-C: `CORRUPTION/SEVERITY/WNID/...`.

    Raises:
        InputError: no such folder, or none of these folders in it.
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
        raise InputError(f"{folder} contains no CORRUPTION/SEVERITY such as gaussian_noise/1")
    return found


def imagenet_c_errors(
    classify: Classify,
    folders: Mapping[tuple[str, int], Path],
    transform: Transform,
    batch: int = 32,
    count: int | None = None,
    progress: Progress = no_progress,
) -> CorruptionErrors:
    """Errors of a model on the published images of ImageNet-C.

    Args:
        classify: a model of ImageNet's 1000 classes, in evaluation mode.
        folders: of `list_imagenet_c`.
        transform: image of 224 x 224 pixels -> (3, H, W), see `AnalyzedModel.resizing`.
        batch: images per forward pass.
        count: number of images of each folder, take_evenly spaced; default: all.
        progress: reports each folder and its images.

    Raises:
        InputError: a corruption without all five severities, or a model of other classes.
    """
    errors: dict[str, list[float]] = {}
    for name in dict.fromkeys(name for name, _ in folders):
        missing = [s for s in SEVERITIES if (name, s) not in folders]
        if missing:
            raise InputError(f"{name} has no folder for severity {', '.join(map(str, missing))}")
    for (name, severity), folder in folders.items():
        images = take_evenly(list_labeled_images(folder), count)
        step = progress(f"{name} {severity}", len(images))
        items = _prepared(images, transform, step)
        share = 100 / len(images)
        wrong = _count_errors(lambda x: _of_imagenet(classify(x)), items, batch)
        errors.setdefault(name, []).append(share * wrong)
    return CorruptionErrors(errors)


def take_evenly(items: Sequence, count: int | None) -> Sequence:
    """`count` take_evenly spaced items; all of them if there are not more or `count` is None."""
    if count is None or count >= len(items):
        return items
    return [items[i * len(items) // count] for i in range(count)]


@cache
def subset_indices(name: str) -> tuple[int, ...]:
    """Indices among ImageNet's 1000 classes of the classes of a data set.

    Args:
        name: "imagenet-a", "imagenet-r" or "imagenet-sketch".

    Raises:
        InputError: another name.
    """
    if name not in SUBSETS:
        raise unknown("data set", name, SUBSETS)
    wnids = pkgutil.get_data("timm.data", f"_info/{SUBSETS[name]}").decode().split()
    return tuple(imagenet_index()[wnid] for wnid in wnids)


@cache
def imagenet_index() -> dict[str, int]:
    """WordNet id -> index among ImageNet's 1000 classes."""
    from timm.data import ImageNetInfo

    return {wnid: i for i, wnid in enumerate(ImageNetInfo().label_names())}


def list_labeled_images(folder: str | os.PathLike) -> list[tuple[Path, int]]:
    """(file, ImageNet class) of the images in folders named by WordNet ids.

    Raises:
        InputError: no such folder, no image, or a folder with another name.
    """
    index = imagenet_index()
    labeled = []
    for path in list_images(folder):
        wnid = path.relative_to(folder).parts[0]
        if wnid not in index:
            raise InputError(
                f"{folder} must contain folders named by WordNet ids of ImageNet, such as "
                f"n01440764, got {wnid}"
            )
        labeled.append((path, index[wnid]))
    return labeled


def subset_error(
    classify: Classify,
    images: Sequence[tuple[Path, int]],
    transform: Transform,
    among: Sequence[int],
    batch: int = 32,
    progress: Callable[[], object] = lambda: None,
) -> float:
    """Error in percent of a model with 1000 outputs that chooses among some of its classes.

    Args:
        classify: the model, in evaluation mode.
        images: (file, class among the 1000) of each image.
        transform: RGB image -> (3, H, W).
        among: allowed classes, see `subset_indices`.
        batch: images per forward pass.
        progress: called after each image.

    Raises:
        InputError: no images, an image of another class, or a model without 1000 outputs.
    """
    if not images:
        raise InputError("no images to classify")
    index = {label: i for i, label in enumerate(among)}
    for path, label in images:
        if label not in index:
            raise InputError(f"{path} has class {label}, which is not one of the {len(index)}")

    chosen = torch.tensor(among)

    def restricted(x: Tensor) -> Tensor:
        logits = _of_imagenet(classify(x))
        return logits[:, chosen.to(logits.device)]

    items = _prepared([(path, index[label]) for path, label in images], transform, progress)
    return 100 * _count_errors(restricted, items, batch) / len(images)


def _of_imagenet(logits: Tensor) -> Tensor:
    if logits.shape[1] != 1000:
        raise InputError(
            f"a model with ImageNet's 1000 classes is needed, this one has {logits.shape[1]}"
        )
    return logits


def _prepared(
    images: Iterable[tuple[Path, int]], transform: Transform, progress: Callable[[], object]
) -> Iterator[tuple[Tensor, int]]:
    for path, label in images:
        yield transform(load_image(path)), label
        progress()


@torch.inference_mode()
def _count_errors(classify: Classify, items: Iterable[tuple[Tensor, int]], batch: int) -> int:
    items, wrong = iter(items), 0
    while group := list(itertools.islice(items, batch)):
        x, labels = zip(*group, strict=True)
        predicted = classify(torch.stack(x)).argmax(1).cpu()
        wrong += int((predicted != torch.tensor(labels)).sum())
    return wrong


def draw_corruptions(results: Mapping[str, CorruptionErrors], path: str | os.PathLike) -> Path:
    """Error over severity: one panel per corruption, one line per model.

    Raises:
        InputError: no errors.
    """
    from seewide.analysis import figures

    names = [n for n in CORRUPTIONS if any(n in result.errors for result in results.values())]
    if not names:
        raise InputError("no corruption errors to draw")
    columns = min(len(names), 5)
    rows = -(-len(names) // columns)
    with figures.style():
        figure, axes = figures.canvas(rows, columns, 2.1 * columns, 1.9 * rows + 0.6)
        for axis in axes[len(names) :]:
            axis.set_axis_off()
        palette = figures.colors(len(results))
        for axis, name in zip(axes, names, strict=False):
            for color, (label, result) in zip(palette, results.items(), strict=True):
                if name in result.errors:
                    errors = result.errors[name]
                    steps = range(1, len(errors) + 1)
                    if result.clean is not None:
                        steps, errors = range(len(errors) + 1), [result.clean, *errors]
                    axis.plot(
                        steps,
                        errors,
                        color=color,
                        label=figures.plain(label),
                        marker="o",
                        markersize=3,
                    )
            axis.set_title(name.replace("_", " "), fontsize=9, pad=4)
            axis.set_ylim(0, 100)
            axis.set_xticks(range(6))
            axis.tick_params(labelsize=7)
            axis.grid(axis="y")
        axes[0].set_ylabel("error (%)", fontsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
        return figures.save(figure, path)
