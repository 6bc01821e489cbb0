"""Scores on pictures: of a model while it trains, and of a finished one in both of its forms."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from timm.data import create_transform
from torch import nn
from torch.utils.data import DataLoader

from seewide.errors import InputError
from seewide.reparam import fuse_checked
from seewide.tasks.classification import Scores
from seewide.train.build import (
    Precision,
    build_model,
    count_parameters,
    mean_and_std,
    resolve_device,
)
from seewide.train.checkpoint import RunInfo, load_run
from seewide.train.console import make_console, make_progress
from seewide.train.data import (
    Broken,
    Order,
    Split,
    Unsplit,
    batches,
    classes_of,
    is_plain,
    list_folder,
    make_loader,
    open_unsplit,
)


def eval_transform(info: RunInfo) -> Callable:
    """timm's evaluation transform: resize, crop, normalise; PIL in, (3, H, W) out."""
    return create_transform(
        input_size=info.image_size,
        is_training=False,
        interpolation=info.interpolation,
        crop_pct=info.crop_pct,
        crop_mode=info.crop_mode,
        mean=info.mean,
        std=info.std,
    )


def make_eval_loader(
    split: Split,
    info: RunInfo,
    batch_size: int,
    workers: int,
    rank: int = 0,
    ranks: int = 1,
    broken: Broken | None = None,
) -> DataLoader:
    """The pictures of one of `ranks` processes, in order: every `ranks`-th.

    Each has as many, so that sharded networks run in step: some read the last picture once more,
    which `score` leaves out.
    """
    last = len(split) - 1
    mine = [min(index, last) for index in range(rank, last + ranks, ranks)]
    part = split if ranks == 1 else split.take(mine)
    order = Order(len(part))
    return make_loader(part, eval_transform(info), order, batch_size, workers, broken=broken)


@torch.no_grad()
def score(
    model: nn.Module,
    loader: DataLoader,
    num_classes: int,
    precision: Precision,
    step: Callable[[], object] = lambda: None,
    count: int | None = None,
) -> Scores:
    """Run the model in evaluation mode over a loader. `step` is called after each batch.

    `count` pictures are scored, default all; what the loader holds beyond is run and forgotten.
    """
    training = model.training
    model.eval()
    scores = Scores(num_classes)
    for x_NCHW, y_N in batches(loader):
        with precision.autocast():
            logits_NK = model(x_NCHW.to(precision.device, non_blocking=True))
        left = len(y_N) if count is None else count - scores.images
        scores.add(logits_NK[:left], y_N[:left])
        step()
    model.train(training)
    return scores


def load_target(target: str, image_size: int | None) -> tuple[nn.Module, RunInfo]:
    """A run's best model, or a model of timm or seewide with its published weights."""
    path = Path(target)
    if path.exists() or "/" in target or path.suffix == ".safetensors":
        model, info = load_run(path)
        return model, replace(info, image_size=image_size or info.image_size)
    model = build_model(target, None, image_size or 224, pretrained=True).eval()
    config = model.pretrained_cfg
    mean, std = mean_and_std(model)
    return model, RunInfo(
        model=target,
        num_classes=model.num_classes,
        class_names=tuple(str(index) for index in range(model.num_classes)),
        image_size=image_size or config["input_size"][-1],
        interpolation=config["interpolation"] or "bicubic",
        crop_pct=config["crop_pct"] or 0.875,
        crop_mode=config["crop_mode"] or "center",
        mean=mean,
        std=std,
        epoch=0,
        top1=0.0,
        data="",
    )


def held_out(info: RunInfo, data: str | None) -> tuple[Split, str]:
    """The pictures to judge by, labelled by the classes of the model, and where they come from.

    The run's own data: the part that was held out. Another folder: its `val/` if it has one,
    otherwise all of it.
    """
    data = data or info.data
    if not data:
        raise InputError(f"{info.model} is no run, so --data must say what to evaluate on")
    if not is_plain(data) or str(Path(data).resolve()) == info.data:
        found = open_unsplit(data)
        _same_classes(info, found)
        source = found.held_out() if found.name == info.data else None
        return (source.val, source.split) if source else found.to_judge()
    folder = Path(data)
    folder = folder / "val" if (folder / "val").is_dir() else folder
    if info.data:
        return list_folder(folder, info.class_names), f"all of {folder}"
    names = classes_of(folder)
    if len(names) != info.num_classes:
        raise InputError(
            f"{folder} has {len(names)} classes, the weights of {info.model} have "
            f"{info.num_classes}"
        )
    return list_folder(folder, names), f"all of {folder}"


def _check_place(data: str | None) -> None:
    """What can be said about the pictures before gigabytes of weights are fetched."""
    if data is not None and is_plain(data) and not Path(data).is_dir():
        raise InputError(
            f"there is no folder {data}; --data is `digits`, a folder, tar shards or a table"
        )


def _same_classes(info: RunInfo, source: Unsplit) -> None:
    if not info.data and len(source.class_names) != info.num_classes:
        raise InputError(
            f"{source.name} has {len(source.class_names)} classes, the weights of {info.model} "
            f"have {info.num_classes}"
        )
    if info.data and source.class_names != info.class_names:
        raise InputError(
            f"the classes of {source.name} ({', '.join(source.class_names[:5])} ...) are not those "
            f"that {info.model} was trained for ({', '.join(info.class_names[:5])} ...)"
        )


@dataclass(frozen=True)
class Form:
    """One form of a network and what it reaches."""

    name: str
    parameters: int
    scores: Scores
    seconds: float

    @property
    def images_per_second(self) -> float:
        return self.scores.images / max(self.seconds, 1e-9)


@dataclass(frozen=True)
class Evaluation:
    """Training form and merged form of one network on the same pictures.

    `deviation`: largest difference of their outputs on a batch, relative to the largest output.
    """

    info: RunInfo
    origin: str
    forms: tuple[Form, Form]
    deviation: float


def evaluate(
    target: str,
    data: str | None = None,
    *,
    image_size: int | None = None,
    batch_size: int = 64,
    workers: int = 0,
    device: str = "auto",
    amp: str = "off",
    console: Console | None = None,
) -> Evaluation:
    """Score a run, or a published model, in both forms.

    Args:
        target: run folder, its `best.safetensors`, or a model name.
        data: `digits` or a folder; default: what the run was trained on, its held-out part.

    Raises:
        InputError: whatever cannot be read or does not fit, in one sentence.
    """
    console = console or make_console()
    _check_place(data)
    model, info = load_target(target, image_size)
    split, origin = held_out(info, data)
    precision = Precision.of(resolve_device(device), amp)
    model.to(precision.device)
    loader = make_eval_loader(split, info, batch_size, workers)
    x_NCHW, _ = next(batches(loader))
    merged, fusion = fuse_checked(model, x_NCHW[:4].to(precision.device))
    forms = []
    for name, form in (("training form", model), ("merged form", merged)):
        started = time.perf_counter()
        with make_progress(console) as progress:
            bar = progress.add_task(name, total=len(loader), note="")
            scores = score(
                form, loader, info.num_classes, precision, partial(progress.advance, bar)
            )
        seconds = time.perf_counter() - started
        forms.append(Form(name, count_parameters(form.parameters()), scores, seconds))
    return Evaluation(info, origin, tuple(forms), fusion.deviation)
