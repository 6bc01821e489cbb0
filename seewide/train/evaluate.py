"""Evaluation: of a model while it trains, and of a trained one, as it is and fused."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn
from torch.utils.data import DataLoader

from seewide.console import make_console, make_progress
from seewide.data.loader import batches
from seewide.errors import InputError, unknown
from seewide.options import parse
from seewide.recipes import Recipe
from seewide.reparam import fuse_checked
from seewide.tasks import Facts, Metric, Sample, Task, get_task
from seewide.train.build import Precision, build_backbone, count_parameters, resolve_device
from seewide.train.checkpoint import WeightsInfo, load_run, make_options
from seewide.train.exported import ExportedModel, is_exported, load_exported_run
from seewide.train.feed import batch_length, make_eval_loader, take_first, to_device
from seewide.train.pages import DescribedSample, describe_worst


@torch.no_grad()
def compute_metric(
    model: nn.Module,
    task: Task,
    facts: Facts,
    loader: DataLoader,
    precision: Precision,
    count: int,
    step: Callable[[], object] = lambda: None,
) -> Metric:
    """Run the model in evaluation mode over a loader.

    Args:
        count: samples that count; the loader's further ones are run, since sharded models run in
            step, and ignored.
        step: called after each batch.
    """
    training = model.training
    model.eval()
    metric = task.metric(facts)
    for batch in batches(loader):
        batch = to_device(batch, precision.device)
        size = batch_length(batch)
        with precision.autocast():
            if 0 < count < size:
                batch = take_first(batch, count)
            prediction = task.predict(model, batch)
        if count > 0:
            metric.update(prediction, batch)
        count -= size
        step()
    model.train(training)
    return metric


def load_target(
    target: str, *, task: str | None = None, image_size: int | None = None
) -> tuple[nn.Module, Task, WeightsInfo]:
    """A run's best model, or a timm model with its published weights.

    Args:
        target: run folder, its `best.safetensors`, an exported file, or a model name.
        task: of a published model; default: classification.
        image_size: in pixels, instead of what the weights were trained or published for.

    Raises:
        InputError: neither a run nor a model, damaged files, or a download that failed.
    """
    path = Path(target)
    if is_exported(path):
        loaded: tuple[nn.Module, Task, WeightsInfo] = load_exported_run(path)
    elif path.exists() or "/" in target or path.suffix == ".safetensors":
        loaded = load_run(path)
    else:
        return _load_published(target, task, image_size)
    if image_size:
        loaded[2].preprocess["image_size"] = image_size
    return loaded


def _load_published(
    target: str, task: str | None, image_size: int | None
) -> tuple[nn.Module, Task, WeightsInfo]:
    kind = get_task(task or "classification")
    backbone = build_backbone(target, {}, image_size=image_size, pretrained=True)
    published = kind()
    facts = published.published_facts(backbone)
    preprocess = published.published_preprocess(backbone)
    if image_size:
        preprocess["image_size"] = image_size
    info = WeightsInfo(target, kind.name, {}, facts, preprocess, {}, epoch=0, score=0.0, data="")
    return backbone.eval(), published, info


@dataclass(frozen=True)
class EvaluatedModel:
    """One version of a network, not fused or fused, and its results.

    Attributes:
        parameters: 0 for an exported file, which does not say.
    """

    name: str
    parameters: int
    metric: Metric
    scores: dict[str, float]
    seconds: float
    samples: int

    @property
    def samples_per_second(self) -> float:
        return self.samples / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Evaluation:
    """The unfused and the fused version of one network, or an exported file, on the same samples.

    Attributes:
        held_out: where the samples come from, in words.
        models: `unfused` and `fused`; of an exported file, one model with the name of its format.
        deviation: largest difference of their outputs on a batch, relative to the largest output;
            None for one model.
        worst: the samples with the largest errors, where the task knows them.
    """

    info: WeightsInfo
    task: Task
    held_out: str
    models: tuple[EvaluatedModel, ...]
    deviation: float | None
    worst: tuple[DescribedSample, ...] = ()


def evaluate(
    target: str,
    data: str | None = None,
    *,
    task: str | None = None,
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    amp: str = "off",
    settings: Mapping[str, Any] | None = None,
    console: Console | None = None,
) -> Evaluation:
    """Evaluate a run or a published model, as it is and fused, or an exported file.

    Args:
        target: run folder, its `best.safetensors`, an exported file, or a model name.
        data: default: what the run was trained on, its held-out part.
        settings: options of the task that only evaluation reads, such as the number of crops, by
            name, instead of the run's; text is read as the type of the option.

    Raises:
        InputError: whatever cannot be read or does not fit, in one sentence.
    """
    console = console or make_console()
    is_run = Path(target).exists() or "/" in target or is_exported(target)
    if data is not None and not is_run:  # before gigabytes of weights are downloaded
        get_task(task or "classification")().check_data(data)
    model, trained_for, info = load_target(target, task=task, image_size=image_size)
    trained_for.options = _changed(trained_for, settings or {})
    if not (data or info.data):
        raise InputError(f"{info.model} is not a run, so --data must say what to evaluate on")
    samples, held_out = trained_for.held_out(data or info.data, info.facts, trained_on=info.data)
    precision = Precision.of(device_of(model, device), amp)
    model.to(precision.device)
    loader, count = make_eval_loader(samples, trained_for, info.preprocess, batch_size, workers)
    deviation = None
    if isinstance(model, ExportedModel):
        versions: dict[str, nn.Module] = {model.exported.format: model}
    else:
        example = trained_for.example(info.facts, info.preprocess, 4).to(precision.device)
        fused, fusion = fuse_checked(model, example)
        versions, deviation = {"unfused": model, "fused": fused}, fusion.deviation
    models = []
    for name, version in versions.items():
        start = time.perf_counter()
        with make_progress(console) as progress:
            bar = progress.add_task(name, total=len(loader), note="")
            metric = compute_metric(
                version, trained_for, info.facts, loader, precision, count,
                partial(progress.advance, bar),
            )  # fmt: skip
        seconds = time.perf_counter() - start
        parameters = count_parameters(version.parameters())
        models.append(EvaluatedModel(name, parameters, metric, metric.compute(), seconds, count))
    describe = partial(describe_sample, version, trained_for, info, precision.device)
    worst = describe_worst(samples, trained_for.worst(models[-1].metric), describe)
    return Evaluation(info, trained_for, held_out, tuple(models), deviation, worst)


@torch.no_grad()
def describe_sample(
    model: nn.Module, task: Task, info: WeightsInfo, device: torch.device, sample: Sample
) -> dict[str, Any]:
    """The task's description of a sample as it was read."""
    batch = task.collate([task.transform(False, info.preprocess)(sample)])
    return task.describe(task.predict(model, to_device(batch, device)), 0, info.facts)


def device_of(model: nn.Module, name: str) -> torch.device:
    """Where to run the model: exported files run on the CPU.

    Raises:
        InputError: another device was named for one.
    """
    if not isinstance(model, ExportedModel):
        return resolve_device(name)
    if name not in ("auto", "cpu"):
        raise InputError(f"exported files run on the cpu here, got --device {name}")
    return torch.device("cpu")


def _changed(task: Task, settings: Mapping[str, Any]) -> Any:
    """The options of the task with those of evaluation replaced."""
    known = {field.name: field for field in fields(task.options)}
    values = {}
    for setting, value in settings.items():
        name = setting.removeprefix("task.")
        if name not in known:
            raise unknown(f"option of the task {task.name}", name, known)
        if not known[name].metadata["may_change"]:
            raise InputError(f"{name} is part of what was trained and cannot change in evaluation")
        values[name] = parse(task.Options, name, value)
    return replace(task.options, **values)


def make_task(recipe: Recipe) -> Task:
    """The task of a recipe, with its options.

    Raises:
        InputError: no such task, or options that it does not have or that are out of range.
    """
    kind = get_task(recipe.task)
    return kind(make_options(kind, recipe.options))


def load_for_task(name: str, **create: Any) -> tuple[nn.Module, Facts | None, dict[str, Any]]:
    """See `seewide.tasks.TrainingContext.load`."""
    if Path(name).exists() or name.endswith(".safetensors"):
        model, _, info = load_run(name)
        return model, info.facts, info.preprocess
    from seewide.preprocess import Preprocess

    learned = "." in name
    model = build_backbone(name, {} if learned else create, pretrained=learned)
    return model.eval(), None, Preprocess.of(model).to_dict()
