"""A run in memory: epoch after epoch, each validated and on disk before the next begins.

An epoch is the unit of safety. Everything that it needs is the state after the one before,
(seed, epoch), and config.json, so a resumed run on the same machine and CPU threads ends with the
same bits as an unbroken one.
"""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from timm.utils import ModelEmaV3
from torch import nn

from seewide.errors import InputError
from seewide.tasks.classification import Classification
from seewide.train.build import Precision, count_parameters, resolve_device
from seewide.train.checkpoint import (
    BEST,
    CONFIG,
    RunConfig,
    RunInfo,
    save_best,
    save_last,
    save_metrics,
)
from seewide.train.console import facts, make_progress
from seewide.train.data import (
    CHECK_AT_MOST,
    Order,
    Source,
    batches,
    check_pictures,
    make_loader,
    train_transform,
)
from seewide.train.evaluate import make_eval_loader, score
from seewide.train.memory import keep_freed_memory
from seewide.train.optim import Schedule, make_optimizer
from seewide.train.seeding import seed_all


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


@dataclass(frozen=True)
class RunResult:
    """Where a run is and what it reached. `top1` and `top5` in percent, of epoch `epoch`."""

    folder: Path
    top1: float
    top5: float
    epoch: int
    history: list[dict[str, float]]

    @property
    def best(self) -> Path:
        return self.folder / BEST


class Run:
    """A run in memory: what it is made of, and one epoch after the other."""

    def __init__(
        self, config: RunConfig, folder: Path, source: Source, model: nn.Module, console: Console
    ) -> None:
        self.config, self.folder, self.console = config, folder, console
        self.recipe = recipe = config.recipe
        self.precision = Precision.of(resolve_device(config.device), config.amp)
        self.split = source.split
        self.train_split = source.train.limited(recipe.limit_images)
        self.val_split = source.val.limited(recipe.limit_images)
        self.updates = len(self.train_split) // recipe.batch_size
        if not self.updates:
            raise InputError(
                f"batch size {recipe.batch_size} is more than the {len(self.train_split)} pictures "
                "to train on; choose a smaller one"
            )
        device_batch = recipe.batch_size // recipe.accumulate
        if (recipe.mixup or recipe.cutmix) and device_batch % 2:
            raise InputError(
                f"mixup and cutmix pair pictures, so a batch must be even, got {device_batch}"
            )
        self.model = model.to(self.precision.device)
        self.task = Classification(
            self.model,
            len(config.class_names),
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
            label_smoothing=recipe.label_smoothing,
        )
        self.ema = (
            ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
            if recipe.ema_decay
            else None
        )
        self.optimizer = make_optimizer(self.model, recipe)
        self.schedule = Schedule(self.optimizer, recipe, self.updates)
        self.scaler = self.precision.scaler()
        self.order = Order(
            len(self.train_split), seed=config.seed, take=self.updates * recipe.batch_size
        )
        self.loader = make_loader(
            self.train_split,
            train_transform(recipe, config.mean, config.std),
            self.order,
            device_batch,
            config.workers,
            seed=config.seed,
        )
        self.val_loader = make_eval_loader(
            self.val_split, self.info(0, 0.0), min(64, len(self.val_split)), config.workers
        )
        self.history: list[dict[str, float]] = []

    def info(self, epoch: int, top1: float) -> RunInfo:
        config, recipe = self.config, self.recipe
        return RunInfo(
            model=config.model,
            num_classes=len(config.class_names),
            class_names=config.class_names,
            image_size=recipe.image_size,
            interpolation=recipe.interpolation,
            crop_pct=recipe.crop_pct,
            crop_mode=recipe.crop_mode,
            mean=config.mean,
            std=config.std,
            epoch=epoch,
            top1=top1,
            data=config.data,
            stem_stride=recipe.stem_stride,
        )

    def state(self) -> dict[str, Any]:
        return {
            "epoch": len(self.history),
            "history": self.history,
            "model": self.model.state_dict(),
            "ema": None if self.ema is None else self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self.scaler.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        try:
            self.model.load_state_dict(state["model"])
            if self.ema is not None:
                self.ema.module.load_state_dict(state["ema"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.scaler.load_state_dict(state["scaler"])
            self.history = state["history"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"last.pt of {self.folder} does not fit its {CONFIG}: {reason}"
            ) from None

    def check_pictures(self) -> None:
        splits = self.train_split, self.val_split
        total = sum(map(len, splits))
        if total > CHECK_AT_MOST:
            return
        with make_progress(self.console) as progress:
            bar = progress.add_task("checking the pictures", total=total, note="")
            for split in splits:
                check_pictures(split, lambda: progress.advance(bar))

    def train(self) -> RunResult:
        """The remaining epochs."""
        if self.precision.device.type == "cpu":
            keep_freed_memory()
        self.announce()
        done = len(self.history)
        with make_progress(self.console) as progress:
            bar = progress.add_task(
                "training",
                total=self.recipe.epochs * self.updates,
                completed=done * self.updates,
                note="",
            )
            try:
                for epoch in range(done + 1, self.recipe.epochs + 1):
                    progress.update(bar, description=f"epoch {epoch}/{self.recipe.epochs}")
                    self.train_epoch(epoch, lambda note: progress.update(bar, advance=1, note=note))
            except KeyboardInterrupt:
                raise Interrupted(
                    f"stopped; {len(self.history)} of {self.recipe.epochs} epochs are kept. "
                    f"Go on with: seewide train --resume {self.folder}"
                ) from None
        best = self.best_row()
        where = f"epoch {best['epoch']}, {self.folder / BEST}"
        self.console.print(
            f"best: top-1 {best['val_top1']:.2f}%, {where}", markup=False, soft_wrap=True
        )
        return RunResult(
            self.folder, best["val_top1"], best["val_top5"], best["epoch"], self.history
        )

    def announce(self) -> None:
        config, recipe = self.config, self.recipe
        millions = count_parameters(self.model.parameters()) / 1e6
        start = "published weights" if config.pretrained else config.checkpoint or "fresh weights"
        if self.history:
            start = f"going on after epoch {len(self.history)}"
        facts(
            self.console,
            model=f"{config.model}, {millions:.2f} M parameters, {start}",
            data=f"{config.data}: {len(self.train_split)} pictures of {len(config.class_names)} "
            "classes",
            held_out=f"{len(self.val_split)} pictures: {self.split}",
            recipe=f"{config.recipe_name}: {recipe.image_size} px, batch {recipe.batch_size}, "
            f"lr {recipe.lr:g}, {self.updates} updates an epoch, epochs {recipe.epochs}",
            seed=config.seed,
            device=self.precision,
            run=self.folder,
        )

    def train_epoch(self, epoch: int, step: Callable[[str], object]) -> None:
        """One epoch, its validation, and everything on disk. `step(note)` follows each update."""
        started = time.perf_counter()
        seed_all(self.config.seed, epoch)
        self.order.epoch = epoch
        self.model.train()
        passes = self.recipe.accumulate
        loss_sum = torch.zeros((), device=self.precision.device)
        images = iter(batches(self.loader))
        lr = 0.0
        for update in range(self.updates):
            done = (epoch - 1) * self.updates + update
            lr = self.schedule.set(done)
            for x_NCHW, y_N in itertools.islice(images, passes):
                x_NCHW = x_NCHW.to(self.precision.device, non_blocking=True)
                y_N = y_N.to(self.precision.device, non_blocking=True)
                with self.precision.autocast():
                    loss = self.task(x_NCHW, y_N) / passes
                self.scaler.scale(loss).backward()
                loss_sum += loss.detach()
            self.update(done + 1)
            mean_loss = float(loss_sum) / (update + 1)
            if not math.isfinite(mean_loss):
                raise InputError(
                    f"the loss became {mean_loss} in epoch {epoch}: try a learning rate below "
                    f"{self.recipe.lr:g}"
                )
            speed = (update + 1) * self.recipe.batch_size / (time.perf_counter() - started)
            step(f"loss {mean_loss:.3f}  lr {lr:.1e}  {speed:.0f} images/s")
        next(images, None)  # lets the loader end its epoch
        seconds = time.perf_counter() - started
        kept = self.model if self.ema is None else self.ema.module
        scores = score(kept, self.val_loader, len(self.config.class_names), self.precision)
        self.history.append(
            {
                "epoch": epoch,
                "train_loss": mean_loss,
                "val_loss": scores.loss,
                "val_top1": scores.top1,
                "val_top5": scores.top5,
                "lr": lr,
                "seconds": round(time.perf_counter() - started, 3),
                "images_per_second": round(self.updates * self.recipe.batch_size / seconds, 1),
            }
        )
        self.save(kept)

    def update(self, count: int) -> None:
        """Step the optimizer with the gradients that have gathered."""
        if self.recipe.clip_grad:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.ema is not None:
            self.ema.update(self.model, step=count)

    def best_row(self) -> dict[str, float]:
        return max(self.history, key=lambda row: (row["val_top1"], -row["val_loss"]))

    def save(self, kept: nn.Module) -> None:
        """The order matters: see seewide.train.checkpoint."""
        row = self.history[-1]
        best = self.best_row() is row
        if best:
            save_best(self.folder, kept, self.info(row["epoch"], row["val_top1"]))
        save_metrics(self.folder, self.history)
        save_last(self.folder, self.state())
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.recipe.epochs}  loss {row['train_loss']:.3f}  "
            f"val loss {row['val_loss']:.3f}  top-1 {row['val_top1']:6.2f}  "
            f"top-5 {row['val_top5']:6.2f}  lr {row['lr']:.1e}  {row['seconds']:.1f} s"
            f"{'  best' if best else ''}",
            markup=False,
        )
