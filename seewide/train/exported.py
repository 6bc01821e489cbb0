"""Runs as exported files: export one with its own images, and use the files again."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from seewide.errors import InputError
from seewide.export import INT8_FORMATS, Exported, export_int8, load_exported
from seewide.export.loading import SUFFIXES
from seewide.tasks import Task
from seewide.train.checkpoint import WeightsInfo


class ExportedModel(nn.Module):
    """An exported file as a module that tasks predict with, on a CPU.

    Shape: what the task's model takes -> what it returns, see `Task.run_exported`
    """

    def __init__(self, exported: Exported, task: Task, preprocess: dict[str, Any]) -> None:
        super().__init__()
        self.exported, self.task, self.preprocess = exported, task, preprocess

    def forward(self, inputs: Any) -> Any:
        return self.task.run_exported(self.exported, inputs, self.preprocess)


def is_exported(target: str | os.PathLike) -> bool:
    """Whether a name is that of an exported network."""
    return Path(target).suffix in SUFFIXES


def load_exported_run(path: str | os.PathLike) -> tuple[ExportedModel, Task, WeightsInfo]:
    """The model of an exported file, its task and its facts, as `load_run` gives them.

    Raises:
        InputError: a file that cannot be opened, or without the facts that `seewide export` writes.
    """
    exported = load_exported(path)
    info = WeightsInfo.from_header(exported.metadata)
    if info is None:
        raise InputError(
            f"{path} does not say its task, classes and preprocessing; files of `seewide export` do"
        )
    task = info.make_task()
    task.prepare_exported(info.facts)
    return ExportedModel(exported, task, info.preprocess).eval(), task, info


def images_of_run(
    task: Task, info: WeightsInfo, calibration: int = 128, compared: int = 500
) -> tuple[list[Tensor], list[Tensor], list[int] | None]:
    """Preprocessed images (C, H, W) of the data that a run was trained on.

    Returns:
        training images, held-out images, and the classes of these; None where they have none.

    Raises:
        InputError: the data is gone, or its samples are no images.
    """
    splits = task.open(info.data)
    transform = task.transform(False, info.preprocess)

    def read(samples: Any, count: int) -> list[dict[str, Any]]:
        samples = samples.limited(count)
        return [transform(samples[index]) for index in range(len(samples))]

    train, held = read(splits.train, calibration), read(splits.val, compared)
    if not all(isinstance(sample.get("image"), Tensor) for sample in (*train, *held)):
        raise InputError(f"int8 is calibrated on images, and {info.data} has none")
    labels = [sample.get("label") for sample in held]
    classes = [int(label) for label in labels if isinstance(label, int)]
    return (
        [sample["image"] for sample in train],
        [sample["image"] for sample in held],
        classes if len(classes) == len(held) else None,
    )


def export_run_int8(
    model: nn.Module, task: Task, info: WeightsInfo, path: Path, format: str
) -> str:
    """Export a run in int8, calibrated and compared on its own data; a line on the result."""
    assert format in INT8_FORMATS
    calibration, images, labels = images_of_run(task, info)
    family = info.model.partition("_")[0]
    with torch.no_grad():
        report = export_int8(
            model, path, format, calibration, info.header(), images, labels, family
        )
    return str(report)
