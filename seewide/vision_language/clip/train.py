"""Training of CLIP models by open_clip's own program.

`train` writes a run folder, builds the arguments of `open_clip_train.main` and calls it in this
process, which knows the towers and configurations. Under torchrun every process does so:

    torchrun --nproc-per-node 8 -m seewide clip train paper_l --data 'shards/{0000..1023}.tar'

What open_clip guarantees holds, and no more: a checkpoint after each epoch, replaced in one step,
so a killed run loses the epoch in progress. A resumed run continues optimizer and schedule, but
draws other random numbers than an uninterrupted one.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from seewide.errors import InputError, require

from .recipes import ClipRecipe
from .run import LOGS, prepare_run, read_recipe, run_name, write_weights
from .shards import brace_pattern, is_shards
from .towers import EXTRA, register

PACKAGES = ("open_clip", "pandas", "webdataset", "braceexpand")  # of open_clip's program
PATIENCE = 24 * 3600.0  # seconds that a process waits for the first one to read the data


def train(
    recipe: ClipRecipe | None,
    data: str,
    out: Path,
    *,
    resume: bool = False,
    start: Path | None = None,
    workers: int = 2,
    seed: int = 0,
    device: str = "cpu",
    check_images: bool = True,
    say: Any = print,
) -> Path:
    """Train a CLIP model into a run folder.

    Args:
        recipe: None when a run is resumed, which has its own.
        data: see `seewide.vision_language.pairs`, or a pattern of tar files.
        start: weights of the image tower: a run folder of `seewide train` or a file.
        say: prints a line.

    Returns:
        The weights, `out/open_clip_model.safetensors`.

    Raises:
        InputError: wrong settings or data; a run folder that exists, or does not when resuming;
            several processes on a CPU, whose device open_clip hands to DistributedDataParallel,
            which takes none there.
    """
    for package in PACKAGES:
        require(package, EXTRA)
    if device == "cpu" and int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise InputError(
            "open_clip trains several processes on GPUs only; on a CPU start one, without torchrun"
        )
    first = int(os.environ.get("RANK", 0)) == 0
    if resume:
        recipe, data = read_recipe(out)
    elif recipe is None:
        raise InputError("a new run needs a recipe")
    elif first:
        for fact in prepare_run(recipe, data, out, check_images, start):
            say(fact)
    else:
        _wait_for(out / "recipe.json")
    open_clip = register()
    open_clip.add_model_config(out / "configs")
    words = arguments(recipe, data, out, workers=workers, seed=seed, device=device)
    main = require("open_clip_train.main", EXTRA)
    require("transformers", EXTRA).logging.set_verbosity_error()
    with short_log(main):
        if main.main([*words, *(["--resume", "latest"] if resume else [])]) == -1:
            raise InputError(f"{out / LOGS} has a log already; resume the run with --resume")
    return write_weights(out) if first else out


def arguments(
    recipe: ClipRecipe, data: str, out: Path, *, workers: int, seed: int, device: str
) -> list[str]:
    """The command line of `open_clip_train.main` for a recipe."""
    shards = is_shards(data)
    values: dict[str, Any] = {
        "model": run_name(out),
        "train-data": brace_pattern(data) if shards else out / "train.csv",
        "dataset-type": "webdataset" if shards else "csv",
        "logs": out,
        "name": LOGS,
        "epochs": recipe.epochs,
        "batch-size": recipe.batch_size,
        "accum-freq": recipe.accumulate,
        "opt": recipe.optimizer,
        "lr": recipe.lr,
        "beta1": recipe.beta1,
        "beta2": recipe.beta2,
        "eps": recipe.eps,
        "wd": recipe.weight_decay,
        "warmup": recipe.warmup_steps,
        "precision": recipe.precision,
        "workers": workers,
        "seed": seed,
        "device": device,
        "save-frequency": 0,  # only the newest checkpoint, which is replaced in one step
        "log-every-n-steps": 10,
    }
    flags = {
        "save-most-recent": True,
        "siglip": recipe.sigmoid_loss,
        "local-loss": recipe.local_loss,
        "gather-with-grad": recipe.local_loss,
        "lock-image": recipe.lock_image,
        "lock-image-freeze-bn-stats": recipe.lock_image,
        "grad-checkpointing": recipe.grad_checkpointing,
    }
    if not shards:
        values |= {"csv-separator": ",", "csv-img-key": "image", "csv-caption-key": "caption"}
    if (out / "val.csv").is_file():
        values["val-data"] = out / "val.csv"
        values["val-frequency"] = 10**6  # only at the end: its recall knows one caption an image
    if recipe.samples_per_epoch:
        values["train-num-samples"] = recipe.samples_per_epoch
    if recipe.unlocked_groups:
        values["lock-image-unlocked-groups"] = recipe.unlocked_groups
    if recipe.clip_grad:
        values["grad-clip-norm"] = recipe.clip_grad
    if (out / "start.safetensors").is_file():
        values["pretrained"] = out / "start.safetensors"
    words = [text for key, value in values.items() for text in (f"--{key}", str(value))]
    words += [f"--{key}" for key, wanted in flags.items() if wanted]
    augment = [f"scale=({recipe.min_crop},1.0)"]
    if recipe.color_jitter:
        strength = recipe.color_jitter
        augment += [f"color_jitter=({strength},{strength},{strength},{strength / 4})"]
        augment += ["color_jitter_prob=0.8"]
    return [*words, "--aug-cfg", *augment]


@contextmanager
def short_log(main: Any) -> Iterator[None]:
    """Print open_clip's lines on epochs and its warnings; its whole log is in open_clip/out.log."""
    setup = main.setup_logging

    def setup_and_filter(path: str | None, level: int, *rest: Any) -> None:
        logging.root.handlers.clear()  # logging.info makes one, and every line would be twice
        setup(path, level, *rest)
        for handler in logging.root.handlers:
            if not isinstance(handler, logging.FileHandler):
                handler.addFilter(_matters)

    main.setup_logging = setup_and_filter
    try:
        yield
    finally:
        main.setup_logging = setup


def _matters(record: logging.LogRecord) -> bool:
    text = record.getMessage()
    return "Epoch" in text.split(":")[0] or record.levelno >= logging.ERROR


def _wait_for(path: Path) -> None:
    """Wait until the first process has written the run folder."""
    started = time.monotonic()
    while not path.is_file():
        if time.monotonic() - started > PATIENCE:
            raise InputError(f"{path} was not written within {PATIENCE / 3600:g} hours")
        time.sleep(1)


def device_name(word: str) -> str:
    """`auto` as cuda where there is a GPU, else cpu."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if word == "auto" else word
