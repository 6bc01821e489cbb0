"""`fit`: train a classifier into a new run folder; `resume`: go on where one stopped."""

from __future__ import annotations

import itertools
import os
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from torch import nn

from seewide._version import __version__
from seewide.errors import InputError
from seewide.models import load_checkpoint
from seewide.recipes import Recipe, get
from seewide.train.build import build_model, check_image_size, draw_by_fan_in, mean_and_std
from seewide.train.checkpoint import (
    CONFIG,
    RunConfig,
    RunInfo,
    load_last,
    weights_of,
)
from seewide.train.console import make_console
from seewide.train.data import SHARE, Source, open_source
from seewide.train.engine import Engine
from seewide.train.loop import Run, RunResult
from seewide.train.seeding import seed_all


def fit(
    model: str | None,
    data: str | Path = "digits",
    recipe: str | Recipe | None = None,
    out: str | Path | None = None,
    *,
    recipe_name: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    device: str = "auto",
    amp: str = "auto",
    compile: bool = False,
    shard: bool = False,
    channels_last: bool = False,
    grad_checkpointing: bool = False,
    save_every: int = 0,
    keep_every: int = 0,
    nan: str = "stop",
    broken: float = SHARE,
    tensorboard: bool = False,
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    fast: bool = False,
    console: Console | None = None,
) -> RunResult:
    """Train `model` on `data` into the folder `out`; again with the same `out`, go on with it.

    Under `torchrun` or `accelerate launch` every process calls it, and the first one writes.

    Args:
        model: a name that `timm.create_model` knows; None: the recipe's.
        data: `digits`, or a folder: `train/` and `val/`, or one folder per class.
        recipe: by name or as data; default: `digits` for the digits, `small_folder` otherwise.
        recipe_name: what to call a recipe given as data.
        out: a new folder, or that of a run with the same settings; default: a new one,
            `runs/<model>-<data>`, with a number if that is taken.
        workers: processes that read pictures, for each process that trains; default: none for the
            digits, half the CPUs, at most 8, for files.
        device: `auto`, `cpu`, `cuda`, ...
        amp: `auto`, `bf16`, `fp16` or `off`.
        compile: the network with torch.compile.
        shard: weights, gradients and optimizer over the processes (FSDP2).
        channels_last: maps in memory pixel by pixel, which GPUs like.
        grad_checkpointing: activations again in backward, where the network can: less memory.
        save_every: the state also within an epoch, every so many updates; 0: after epochs.
        keep_every: the weights of every so many epochs in a file of their own; 0: best and last.
        nan: `stop` at a loss or gradient that is no number, or `skip` the update.
        broken: share of the pictures that may be unreadable; they are skipped and named.
        tensorboard: all readings also for TensorBoard, in the run folder.
        pretrained: start from the published weights of the model.
        checkpoint: start from a run or a weights file; the classifier is made anew.
        fast: the recipe's smoke twin, a run of seconds.
        console: where the lines go; `rich.console.Console(quiet=True)` for nowhere.

    Raises:
        InputError: whatever cannot work, in one sentence; before any training wherever possible.
        Interrupted: Ctrl-C.
        Terminated: SIGTERM; everything is saved.
    """
    source = open_source(data)
    if recipe is None:
        recipe = "digits" if source.name == "digits" else "small_folder"
    if isinstance(recipe, str):
        recipe_name, recipe = recipe, get(recipe)
    if fast:
        recipe = recipe.smoke()
    name = model or recipe.model
    if not name:
        raise InputError(f"recipe {recipe_name or 'custom'} names no model; give one beside it")
    if pretrained and checkpoint is not None:
        raise InputError("--pretrained and --checkpoint both say where to start from; give one")
    if workers is None:
        workers = 0 if source.name == "digits" else min(8, (os.cpu_count() or 1) // 2)
    engine = Engine(device, amp, compile=compile, shard=shard)
    console = _console(console, engine)
    seed_all(seed)
    network = _start(name, source, recipe, pretrained, checkpoint)
    check_image_size(network, name, recipe.image_size)
    mean, std = mean_and_std(network)
    config = RunConfig(
        model=name,
        data=source.name,
        recipe_name=recipe_name or "custom",
        recipe=recipe,
        seed=seed,
        workers=workers,
        device=engine.device.type if engine.ranks > 1 else str(engine.device),
        amp=amp,
        pretrained=pretrained,
        checkpoint=None if checkpoint is None else str(Path(checkpoint).resolve()),
        class_names=source.class_names,
        train_images=len(source.train),
        val_images=len(source.val),
        mean=mean,
        std=std,
        versions={"seewide": __version__, **{name: version(name) for name in ("torch", "timm")}},
        compile=compile,
        shard=shard,
        channels_last=channels_last,
        grad_checkpointing=grad_checkpointing,
        save_every=save_every,
        keep_every=keep_every,
        nan=nan,
        broken=broken,
        tensorboard=tensorboard,
    )
    # The first process decides for all: the others may find what it has just written.
    folder, begun = engine.from_leader(_folder(out, f"{name}-{source.short}"))
    if begun:
        _same_run(folder, config)
    run = Run(config, folder, source, network, engine, console)
    state = load_last(folder) if begun else None
    if state is not None:
        run.load_state(state)
    if not begun:
        run.feed.check()
        if engine.leads:
            config.save(folder)
    with engine.together():
        return run.train()


def resume(
    run: str | Path,
    *,
    device: str | None = None,
    workers: int | None = None,
    nan: str | None = None,
    broken: float | None = None,
    console: Console | None = None,
) -> RunResult:
    """Go on with a run where its `last.pt` is, to the end that its recipe says.

    `device`, `workers`, `nan` and `broken` may differ from before, and so may the processes; the
    other settings are those of the run. On the CPU the result is that of an unbroken run, to the
    bit, for any number of workers, and up to rounding for any number of processes.

    Raises:
        InputError: no run, a damaged `last.pt`, or pictures that are not those of before.
    """
    folder = Path(run)
    config = RunConfig.load(folder)
    new = {"workers": workers, "nan": nan, "broken": broken}
    config = replace(config, **{key: value for key, value in new.items() if value is not None})
    engine = Engine(device or config.device, config.amp, compile=config.compile, shard=config.shard)
    state = load_last(folder)
    source = open_source(config.data)
    now = (source.class_names, len(source.train), len(source.val))
    if now != (config.class_names, config.train_images, config.val_images):
        raise InputError(
            f"{source.name} has changed since the run began: {len(now[0])} classes, {now[1]} + "
            f"{now[2]} pictures now; {len(config.class_names)} classes, {config.train_images} + "
            f"{config.val_images} then"
        )
    seed_all(config.seed)
    if state is None:  # from the start, and so from the same weights
        network = _start(config.model, source, config.recipe, config.pretrained, config.checkpoint)
    else:
        network = build_model(
            config.model,
            len(config.class_names),
            config.recipe.image_size,
            drop_path=config.recipe.drop_path,
            stem_stride=config.recipe.stem_stride,
        )
    continued = Run(config, folder, source, network, engine, _console(console, engine))
    if state is not None:
        continued.load_state(state)
    with engine.together():
        return continued.train()


def _console(console: Console | None, engine: Engine) -> Console:
    """One process speaks for all."""
    if not engine.leads:
        return Console(quiet=True)
    return console or make_console()


def _start(
    name: str, source: Source, recipe: Recipe, pretrained: bool, checkpoint: str | Path | None
) -> nn.Module:
    """The network of the first epoch: fresh, published weights, or those of a checkpoint."""
    classes = len(source.class_names)
    if checkpoint is None:
        model = build_model(
            name,
            classes,
            recipe.image_size,
            drop_path=recipe.drop_path,
            layer_scale=recipe.layer_scale,
            stem_stride=recipe.stem_stride,
            pretrained=pretrained,
        )
        if recipe.fan_in_init and not pretrained:
            draw_by_fan_in(model)
    else:
        path = weights_of(checkpoint)
        info = RunInfo.of(path) if path.suffix == ".safetensors" else None
        # The weights bring their own classifier, which goes once they are in. Weights that do not
        # say their classes have those of the model's tag: 21841 for unireplknet_s.in22k.
        model = build_model(
            name,
            info and info.num_classes,
            recipe.image_size,
            drop_path=recipe.drop_path,
            stem_stride=recipe.stem_stride,
        )
        load_checkpoint(model, path).reset_classifier(classes)
    if recipe.head_init_scale != 1:
        classifiers = model.get_classifier()  # of distilled networks, two
        with torch.no_grad():
            for classifier in classifiers if isinstance(classifiers, tuple) else (classifiers,):
                for parameter in classifier.parameters():
                    parameter.mul_(recipe.head_init_scale)
    return model


# What may differ when a run goes on: how it is carried out, not what is learned.
CARRIED_OUT = (
    "workers", "device", "compile", "shard", "channels_last", "grad_checkpointing", "save_every",
    "keep_every", "nan", "broken", "tensorboard", "versions",
)  # fmt: skip


def _same_run(folder: Path, config: RunConfig) -> None:
    """Refuse a folder that holds another run than the one that is asked for."""
    there = RunConfig.load(folder)
    for field in fields(RunConfig):
        old, new = getattr(there, field.name), getattr(config, field.name)
        if field.name not in CARRIED_OUT and old != new:
            what = field.name
            if isinstance(old, Recipe):
                what, old, new = _difference(old, new)
            raise InputError(
                f"{folder} already holds a run with {what}={old!r}, not {new!r}: `--resume "
                f"{folder}` continues it, another --out starts a new one"
            )


def _difference(old: Recipe, new: Recipe) -> tuple[str, Any, Any]:
    """The first setting that two recipes do not share."""
    pairs = ((f.name, getattr(old, f.name), getattr(new, f.name)) for f in fields(Recipe))
    return next(pair for pair in pairs if pair[1] != pair[2])


def _folder(out: str | Path | None, default: str) -> tuple[Path, bool]:
    """Where a run goes, and whether there is one already."""
    if out is None:
        names = itertools.chain([default], (f"{default}-{count}" for count in itertools.count(2)))
        free = (Path("runs", name) for name in names if not Path("runs", name).exists())
        return next(free), False
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, a run needs a folder")
    return folder, (folder / CONFIG).exists()
