"""What `erf`, `analyze` and `report` share: models by name and folders of images."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from seewide.errors import InputError

if TYPE_CHECKING:
    from seewide.analysis.analyzed_model import AnalyzedModel


def needed(data: Path | None, what: str) -> Path:
    """The folder.

    Raises:
        InputError: none was named.
    """
    if data is None:
        raise InputError(f"--data DIR is required: a folder of {what}")
    return data


def load_subjects(arguments: Namespace, random_weights: bool = False) -> list[AnalyzedModel]:
    """The models of the command line; `random_weights` overrides the flag."""
    size = getattr(arguments, "image_size", None)
    random = random_weights or arguments.random_weights
    return [load_subject(name, size, random) for name in arguments.models]


def load_subject(target: str, image_size: int | None, random_weights: bool) -> AnalyzedModel:
    """A run, or a timm model with its published weights or with random ones."""
    import torch

    from seewide.analysis.analyzed_model import AnalyzedModel
    from seewide.preprocess import Preprocess
    from seewide.train.build import build_backbone
    from seewide.train.checkpoint import METRICS
    from seewide.train.evaluate import load_target
    from seewide.train.lines import read_json_lines

    path = Path(target)
    is_file = path.exists() or "/" in target or path.suffix == ".safetensors"
    if random_weights and not is_file:
        torch.manual_seed(0)
        model = build_backbone(target, {}, image_size=image_size).eval()
        return AnalyzedModel(target, model, Preprocess.of(model, image_size))
    model, _, info = load_target(target, image_size=image_size)
    metrics = []
    if (path / METRICS).is_file():
        metrics, damaged = read_json_lines(path / METRICS)
        if damaged is not None:
            raise InputError(f"line {damaged} of {path / METRICS} is damaged")
    return AnalyzedModel(
        path.name if is_file else target,
        model.eval(),
        Preprocess.from_dict(info.preprocess),
        trained=True,
        class_names=info.facts.get("class_names", ()),
        metrics=metrics,
    )


def classified(folder: Path, subject: AnalyzedModel) -> list[tuple[Path, int]]:
    """(file, class) of images in folders that are named by the model's classes or WordNet ids.

    Raises:
        InputError: other names, or WordNet ids for a model without ImageNet's 1000 classes.
    """
    from seewide.analysis.images import list_images
    from seewide.analysis.robustness import list_labeled_images

    indices = {name: index for index, name in enumerate(subject.class_names)}
    paths = list_images(folder)
    if all(path.parent.name in indices for path in paths):
        return [(path, indices[path.parent.name]) for path in paths]
    labelled = list_labeled_images(folder)
    if (classes := subject.num_classes()) != 1000:
        raise InputError(
            f"the folders of {folder} are ImageNet's classes, {subject.name} has {classes} classes"
        )
    return labelled
