"""Zero-shot classification of any folder of classes.

Class names and templates come from two text files, one entry a line, as clip-benchmark has them
(`classnames.txt`, `zeroshot_classification_templates.txt`, with `{c}` for the class name; `{}` is
read as well). Without them the folders' names and `a photo of a {c}.` are taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from seewide.data.images import list_image_files
from seewide.errors import InputError

from .model import Clip
from .towers import register

NAMES_FILE, TEMPLATES_FILE = "classnames.txt", "zeroshot_classification_templates.txt"
TEMPLATE = "a photo of a {c}."


@dataclass(frozen=True)
class ZeroShotReport:
    """Accuracies in percent; `confusion_KK[i, j]` counts images of class i named j."""

    classes: tuple[str, ...]
    images: int
    top1: float
    top5: float
    mean_per_class: float
    confusion_KK: Tensor


def class_folders(data: Path) -> dict[str, list[Path]]:
    """Images by class folder, in the order of the folders' names.

    Raises:
        InputError: no folder of classes.
    """
    data = data / "val" if (data / "val").is_dir() else data
    if not data.is_dir():
        raise InputError(f"{data} does not exist")
    folders = sorted(f for f in data.iterdir() if f.is_dir() and not f.name.startswith("."))
    found = {f.name: [f / name for name in list_image_files(f)] for f in folders}
    found = {name: paths for name, paths in found.items() if paths}
    if len(found) < 2:
        raise InputError(f"{data} must have a folder of images per class, has {len(found)}")
    return found


def read_class_names(path: Path | None, folders: Sequence[str]) -> list[str]:
    """Names of the classes, in the order of the sorted folders.

    Raises:
        InputError: no such file, or another number of lines than folders.
    """
    if path is None:
        return [name.replace("_", " ") for name in folders]
    names = read_lines(path)
    if len(names) != len(folders):
        raise InputError(f"{path} has {len(names)} class names and the data {len(folders)} folders")
    return names


def read_templates(path: Path | None) -> list[str]:
    """Templates with `{c}` for the class name.

    Raises:
        InputError: no such file, or a template without a mark for the name.
    """
    templates = [TEMPLATE] if path is None else read_lines(path)
    for template in templates:
        if "{c}" not in template and "{}" not in template:
            raise InputError(f"the template {template!r} in {path} has no {{c}} for the class name")
    return templates


def read_lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty.

    Raises:
        InputError: no such file, or an empty one.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    if not (lines := [line.strip() for line in text.splitlines() if line.strip()]):
        raise InputError(f"{path} is empty")
    return lines


def build_classifier(clip: Clip, names: Sequence[str], templates: Sequence[str]) -> Tensor:
    """The (D, K) weights of a classifier: the mean embedding of each class over the templates."""
    sentences = [_filler(template) for template in templates]
    return register().build_zero_shot_classifier(
        clip.model, clip.tokenizer, list(names), sentences, device=clip.device
    )


def _filler(template: str):
    return lambda name: template.replace("{c}", name).replace("{}", name)


def zero_shot(
    clip: Clip, data: Path, class_names: Path | None = None, templates: Path | None = None
) -> ZeroShotReport:  # fmt: skip
    """Classify the images of a folder by the names of its classes.

    Args:
        data: one folder per class, or a folder with `val/` that has them. Files with the names
            above inside it are used if none are given.

    Raises:
        InputError: no classes, files that do not fit, or an image that cannot be read.
    """
    folders = class_folders(data)
    class_names = class_names or _beside(data, NAMES_FILE)
    templates = templates or _beside(data, TEMPLATES_FILE)
    names = read_class_names(class_names, list(folders))
    weights_DK = build_classifier(clip, names, read_templates(templates)).cpu()
    labels = [label for label, paths in enumerate(folders.values()) for _ in paths]
    features_ND = clip.encode_images(path for paths in folders.values() for path in paths)
    return accuracies(features_ND @ weights_DK, torch.tensor(labels), names)


def accuracies(scores_NK: Tensor, label_N: Tensor, names: Sequence[str]) -> ZeroShotReport:
    """Top-1, top-5 and mean per-class accuracy from the scores of N images and K classes."""
    K = len(names)
    order = scores_NK.argsort(1, descending=True)
    hit = order == label_N[:, None]
    confusion = torch.zeros(K, K, dtype=torch.long)
    confusion.index_put_((label_N, order[:, 0]), torch.ones_like(label_N), accumulate=True)
    counts = confusion.sum(1)
    per_class = (confusion.diag() / counts)[counts > 0]
    return ZeroShotReport(
        tuple(names),
        len(label_N),
        100 * float(hit[:, 0].double().mean()),
        100 * float(hit[:, :5].any(1).double().mean()),
        100 * float(per_class.double().mean()),
        confusion,
    )


def _beside(data: Path, name: str) -> Path | None:
    return next((f / name for f in (data, data.parent) if (f / name).is_file()), None)
