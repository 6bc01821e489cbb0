"""The teacher of a recipe, by its timm name or from a run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import timm
import torch
from torch import nn

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.tasks.classification import Classification
from seewide.tasks.distillation import Distillation, Teacher
from seewide.train.build import build_model, check_image_size, mean_and_std
from seewide.train.checkpoint import load_run

Normalization = tuple[Sequence[float], Sequence[float]]


def make_task(
    model: nn.Module,
    recipe: Recipe,
    class_names: Sequence[str],
    normalization: Normalization,
    device: torch.device | str = "cpu",
) -> Classification:
    """The model and its loss as the recipe says, with a teacher or without.

    The loop calls it once, where it would make a `Classification`; the teacher lies on `device`,
    outside the task's state and parameters, and runs under the autocast that the task runs under.

    Args:
        model: the student.
        class_names: of the data, in the order of its labels.
        normalization: mean and std of the pictures that the student gets.

    Raises:
        InputError: as `load_teacher`.
    """
    augmentation = {
        "mixup": recipe.mixup,
        "cutmix": recipe.cutmix,
        "label_smoothing": recipe.label_smoothing,
    }
    if not recipe.teacher:
        return Classification(model, len(class_names), **augmentation)
    teacher = load_teacher(recipe.teacher, class_names, recipe.image_size, normalization)
    return Distillation(
        model,
        len(class_names),
        teacher.to(device),
        kind=recipe.distill,
        alpha=recipe.distill_alpha,
        tau=recipe.distill_tau,
        **augmentation,
    )


def load_teacher(
    teacher: str, class_names: Sequence[str], image_size: int, shown: Normalization
) -> Teacher:
    """A teacher for pictures of `image_size` px.

    Args:
        teacher: a run folder or its `best.safetensors`; or a model of timm with its weight tag, as
            `regnety_160.deit_in1k`, whose weights are downloaded. Without a tag the network has
            learned nothing, which serves tests.
        class_names: of the data. A run must have the same; of a model of timm only the number can
            be compared, unless it has learned nothing.
        shown: mean and std of the pictures.

    Raises:
        InputError: no such run or model, no weights, other classes, or pictures that it cannot
            take.
    """
    classes = len(class_names)
    if Path(teacher).exists() or teacher.endswith(".safetensors"):
        model, info = load_run(teacher)
        if info.class_names != tuple(class_names):
            raise InputError(
                f"the teacher {teacher} was trained on other classes ({_few(info.class_names)}) "
                f"than the data's ({_few(class_names)})"
            )
        name, size, own = info.model, info.image_size, (info.mean, info.std)
    else:
        name, learned = teacher, "." in teacher
        config = timm.get_pretrained_cfg(name) if timm.is_model(name.partition(".")[0]) else None
        size = config.input_size[-1] if config is not None else image_size
        model = build_model(name, None if learned else classes, size, pretrained=learned)
        own = mean_and_std(model)
        if model.num_classes != classes:
            raise InputError(
                f"the teacher {teacher} knows {model.num_classes} classes and the data has "
                f"{classes}; a teacher must know the same"
            )
    config = timm.get_pretrained_cfg(name)
    if config is None or not config.fixed_input_size:
        size = 0
        check_image_size(model, name, image_size)
    return Teacher(model, teacher, shown, own, size)


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:3]) + (f", ... {len(names)} in all" if len(names) > 3 else "")
