"""`fit`: train a classifier into a new run folder; `resume`: go on where one stopped."""

from __future__ import annotations

import itertools
import os
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import torch
from rich.console import Console
from torch import nn

from seewide._version import __version__
from seewide.errors import InputError
from seewide.models import load_checkpoint
from seewide.recipes import Recipe, get
from seewide.train.build import (
    Precision,
    build_model,
    check_image_size,
    draw_by_fan_in,
    mean_and_std,
    resolve_device,
)
from seewide.train.checkpoint import CONFIG, RunConfig, RunInfo, load_last, weights_of
from seewide.train.console import make_console
from seewide.train.data import Source, open_source
from seewide.train.loop import Run, RunResult
from seewide.train.seeding import seed_all


def fit(
    model: str,
    data: str | Path = "digits",
    recipe: str | Recipe | None = None,
    out: str | Path | None = None,
    *,
    recipe_name: str | None = None,
    seed: int = 0,
    workers: int | None = None,
    device: str = "auto",
    amp: str = "auto",
    pretrained: bool = False,
    checkpoint: str | Path | None = None,
    fast: bool = False,
    console: Console | None = None,
) -> RunResult:
    """Train `model` on `data` into the folder `out`.

    Args:
        model: a name that `timm.create_model` knows.
        data: `digits`, or a folder: `train/` and `val/`, or one folder per class.
        recipe: by name or as data; default: `digits` for the digits, `small_folder` otherwise.
        recipe_name: what to call a recipe given as data.
        out: a new folder; default: `runs/<model>-<data>`, with a number if that is taken.
        workers: processes that read pictures; default: none for the digits, half the CPUs, at
            most 8, for files.
        device: `auto`, `cpu`, `cuda`, ...
        amp: `auto` or `off`.
        pretrained: start from the published weights of the model.
        checkpoint: start from a run or a weights file; the classifier is made anew.
        fast: the recipe's smoke twin, a run of seconds.
        console: where the lines go; `rich.console.Console(quiet=True)` for nowhere.

    Raises:
        InputError: whatever cannot work, in one sentence; before any training wherever possible.
        Interrupted: Ctrl-C.
    """
    console = console or make_console()
    source = open_source(data)
    short = "digits" if source.name == "digits" else Path(source.name).name
    if recipe is None:
        recipe = "digits" if source.name == "digits" else "small_folder"
    if isinstance(recipe, str):
        recipe_name, recipe = recipe, get(recipe)
    if fast:
        recipe = recipe.smoke()
    if pretrained and checkpoint is not None:
        raise InputError("--pretrained and --checkpoint both say where to start from; give one")
    if workers is None:
        workers = 0 if source.name == "digits" else min(8, (os.cpu_count() or 1) // 2)
    Precision.of(resolve_device(device), amp)  # a wrong name is told before any work
    seed_all(seed)
    network = _start(model, source, recipe, pretrained, checkpoint)
    check_image_size(network, model, recipe.image_size)
    mean, std = mean_and_std(network)
    config = RunConfig(
        model=model,
        data=source.name,
        recipe_name=recipe_name or "custom",
        recipe=recipe,
        seed=seed,
        workers=workers,
        device=str(resolve_device(device)),
        amp=amp,
        pretrained=pretrained,
        checkpoint=None if checkpoint is None else str(Path(checkpoint).resolve()),
        class_names=source.class_names,
        train_images=len(source.train),
        val_images=len(source.val),
        mean=mean,
        std=std,
        versions={"seewide": __version__, **{name: version(name) for name in ("torch", "timm")}},
    )
    folder = _new_folder(out, f"{model}-{short}")
    run = Run(config, folder, source, network, console)
    run.check_pictures()
    config.save(folder)
    return run.train()


def resume(
    run: str | Path,
    *,
    device: str | None = None,
    workers: int | None = None,
    console: Console | None = None,
) -> RunResult:
    """Go on with a run after its last finished epoch, to the end that its recipe says.

    `device` and `workers` may differ from before; the other settings are those of the run. On the
    CPU the result is that of an unbroken run, to the bit, for any number of workers.

    Raises:
        InputError: no run, a damaged `last.pt`, or pictures that are not those of before.
    """
    console = console or make_console()
    folder = Path(run)
    config = RunConfig.load(folder)
    config = replace(
        config,
        device=config.device if device is None else str(resolve_device(device)),
        workers=config.workers if workers is None else workers,
    )
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
    continued = Run(config, folder, source, network, console)
    if state is not None:
        continued.load_state(state)
    return continued.train()


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


def _new_folder(out: str | Path | None, default: str) -> Path:
    if out is not None:
        folder = Path(out)
        if (folder / CONFIG).exists():
            raise InputError(
                f"{folder} already holds a run: `--resume {folder}` continues it, another --out "
                "starts a new one"
            )
        if folder.exists() and not folder.is_dir():
            raise InputError(f"{folder} is a file, a run needs a folder")
        return folder
    names = itertools.chain([default], (f"{default}-{count}" for count in itertools.count(2)))
    return next(Path("runs", name) for name in names if not Path("runs", name).exists())
