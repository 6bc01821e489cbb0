"""A run: epoch after epoch, each validated, and on disk as often as it is told.

All chance follows from (seed, epoch, update, pass) and, for a picture, (seed, epoch, index). Passes
are counted over all processes, and so are the pictures. So the state after any update is what the
learner holds and a place in an epoch: there are no generators to save, a resumed run ends with the
bits of an unbroken one on the same machine and CPU threads, and two processes do what one does in
twice the passes, up to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from seewide.errors import InputError
from seewide.tasks.classification import Scores
from seewide.train.build import count_parameters
from seewide.train.checkpoint import (
    BEST,
    CONFIG,
    CURVES,
    LAST,
    RunConfig,
    RunInfo,
    every,
    save_metrics,
    save_tensors,
    save_weights,
)
from seewide.train.console import facts, make_progress
from seewide.train.data import Source
from seewide.train.density import DENSITY, report_density
from seewide.train.engine import Engine
from seewide.train.evaluate import score
from seewide.train.feed import Feed
from seewide.train.learner import Learner, Outcome
from seewide.train.memory import keep_freed_memory
from seewide.train.surviving import (
    Interrupted,
    Terminated,
    Termination,
    Writer,
    snapshot,
)
from seewide.train.watching import Watch, draw_run


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


@dataclass
class Place:
    """How far an epoch is: updates done, those of them left out, and sums over the others."""

    update: int = 0
    skipped: int = 0
    loss: float = 0.0
    norm: float = 0.0

    def add(self, outcome: Outcome) -> None:
        self.update += 1
        if outcome.finite:
            self.loss += outcome.loss
            self.norm += outcome.norm
        else:
            self.skipped += 1

    def mean(self, total: float) -> float:
        return total / max(self.update - self.skipped, 1)


class Run:
    """A run in memory: what it is made of, and one epoch after the other."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        source: Source,
        model: nn.Module,
        engine: Engine,
        console: Console,
    ) -> None:
        self.config, self.folder, self.console, self.engine = config, folder, console, engine
        self.recipe = config.recipe
        self.feed = Feed(config, self.info(0, 0.0), folder, source, engine, console)
        self.updates = self.feed.updates
        self.learner = Learner(model, config, engine, self.updates)
        self.writer = Writer()
        self.history: list[dict[str, float]] = []
        self.place = Place()

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
        """All there is to go on from, as a copy; every process of a sharded run must ask."""
        where = {"epoch": len(self.history), "place": asdict(self.place), "history": self.history}
        return snapshot(where | self.learner.state_dict())

    def load_state(self, state: dict[str, Any]) -> None:
        try:
            self.learner.load_state_dict(state)
            self.place = Place(**state["place"])
            self.history = state["history"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{LAST} of {self.folder} does not fit its {CONFIG}: {reason}"
            ) from None

    def train(self) -> RunResult:
        """The remaining epochs."""
        if self.engine.device.type == "cpu":
            keep_freed_memory()
        self.announce()
        total, done = self.recipe.epochs * self.updates, self.updates_done
        if self.recipe.sparsity and not done:
            self.make_sparse()
        with (
            Termination() as self.termination,
            self.eyes(total, done) as watch,
            make_progress(self.console) as progress,
        ):
            bar = progress.add_task("training", total=total, completed=done, note="")

            def step(outcome: Outcome) -> None:
                if watch is not None:
                    reading = watch.update(epoch, outcome.loss, outcome.lr, outcome.norm)
                    progress.update(bar, advance=1, note=str(reading))

            try:
                for epoch in range(len(self.history) + 1, self.recipe.epochs + 1):
                    progress.update(bar, description=f"epoch {epoch}/{self.recipe.epochs}")
                    self.train_epoch(epoch, step)
                    if watch is not None:
                        watch.epoch(self.history[-1])
            except KeyboardInterrupt:
                raise Interrupted(
                    f"stopped; {len(self.history)} of {self.recipe.epochs} epochs are kept. "
                    f"Go on with: seewide train --resume {self.folder}"
                ) from None
            finally:
                self.writer.close()
        best = self.best_row()
        where = f"epoch {best['epoch']}, {self.folder / BEST}"
        self.console.print(
            f"best: top-1 {best['val_top1']:.2f}%, {where}", markup=False, soft_wrap=True
        )
        return RunResult(
            self.folder, best["val_top1"], best["val_top5"], best["epoch"], self.history
        )

    @property
    def updates_done(self) -> int:
        return len(self.history) * self.updates + self.place.update

    def eyes(self, total: int, done: int) -> AbstractContextManager[Watch | None]:
        """A watch, on the process that writes."""
        if not self.engine.leads:
            return nullcontext()
        return Watch(
            self.folder,
            total,
            self.recipe.batch_size,
            done=done,
            device=self.engine.device,
            tensorboard=self.config.tensorboard,
            console=self.console,
        )

    def announce(self) -> None:
        config, recipe, learner = self.config, self.recipe, self.learner
        millions = count_parameters(learner.model.parameters()) / 1e6
        start = "published weights" if config.pretrained else config.checkpoint or "fresh weights"
        if self.history or self.place.update:
            start = f"going on after {self.where()}"
        scaled = f" ({recipe.lr:g} for each {recipe.lr_batch})" if recipe.lr_batch else ""
        lines: dict[str, object] = {
            "model": f"{config.model}, {millions:.2f} M parameters, {start}",
            "data": f"{config.data}: {len(self.feed.train)} pictures of "
            f"{len(config.class_names)} classes",
            "held_out": f"{len(self.feed.val)} pictures: {self.feed.split}",
            "recipe": f"{config.recipe_name}: {recipe.image_size} px, {self.updates} updates an "
            f"epoch, epochs {recipe.epochs}",
            "batch": learner.batch,
            "lr": f"{recipe.scaled_lr:g}{scaled}",
            "seed": config.seed,
            "device": self.engine,
            "run": self.folder,
        }
        if recipe.teacher:
            lines["teacher"] = f"{recipe.teacher}, {recipe.distill} distillation"
        if recipe.sync_batch_norm and self.engine.ranks > 1 and self.engine.device.type != "cuda":
            lines["batch_norm"] = "of each process alone: torch synchronises it on CUDA only"
        facts(self.console, **lines)

    def where(self) -> str:
        """How far the run is, in words."""
        update = f", update {self.place.update} of {self.updates}" if self.place.update else ""
        return f"epoch {len(self.history)}{update}"

    def make_sparse(self) -> None:
        """The first masks; and what they leave, which stays the same."""
        self.learner.make_sparse(self.feed.batches(1))
        if self.engine.leads:
            side = self.recipe.image_size
            report = report_density(self.learner.sparsity, (1, 3, side, side))
            report.save(self.folder / DENSITY)
            self.console.print(f"sparse    {report}", markup=False, soft_wrap=True)

    def train_epoch(self, epoch: int, step: Callable[[Outcome], object]) -> None:
        """The rest of an epoch, its validation, and everything on disk.

        `step(outcome)` follows each update.
        """
        started, begun = time.perf_counter(), self.place.update
        self.learner.model.train()
        images = self.feed.batches(epoch, begun)
        for update in range(begun, self.updates):
            self.stop_if_asked()
            outcome = self.learner.update(epoch, update, images)
            if not self.learner.patience.endures(outcome.finite):
                self.stop_for_nan(epoch, update, outcome)
            self.place.add(outcome)
            step(outcome)
            if self.config.save_every and self.place.update % self.config.save_every == 0:
                self.save_state()
        next(images, None)  # lets the loader end its epoch
        seconds = time.perf_counter() - started
        self.stop_if_asked()
        scores = self.validate()
        place, self.place = self.place, Place()
        self.history.append(
            {
                "epoch": epoch,
                "train_loss": place.mean(place.loss),
                "val_loss": scores.loss,
                "val_top1": scores.top1,
                "val_top5": scores.top5,
                "lr": self.learner.schedule.set(epoch * self.updates - 1),
                "grad_norm": place.mean(place.norm),
                "skipped": place.skipped,
                "seconds": round(time.perf_counter() - started, 3),
                "images_per_second": round(
                    (self.updates - begun) * self.recipe.batch_size / seconds, 1
                ),
            }
        )
        self.save_epoch()

    def validate(self) -> Scores:
        """Of all processes together. One alone is also free to stop here when asked to."""
        own = score(
            self.learner.kept,
            self.feed.val_loader,
            len(self.config.class_names),
            self.engine.precision,
            self.stop_if_asked if self.engine.ranks == 1 else (lambda: None),
            self.feed.val_count,
        )
        return Scores.together(self.engine.gather(own))

    def stop_if_asked(self) -> None:
        """SIGTERM to any process: save where the run is, and end."""
        (asked,) = self.engine.total(self.termination.asked)
        if asked:
            self.save_state()
            self.writer.wait()
            raise Terminated(
                f"asked to stop; everything is kept, up to {self.where()}. "
                f"Go on with: seewide train --resume {self.folder}"
            )

    def stop_for_nan(self, epoch: int, update: int, outcome: Outcome) -> None:
        """Keep the batch, and end."""
        path = self.feed.keep(epoch, update, outcome)
        what = "gradient" if math.isfinite(outcome.loss) else "loss"
        value = outcome.norm if what == "gradient" else outcome.loss
        raise InputError(
            f"the {what} became {value} in epoch {epoch}, update {update + 1}: try a learning rate "
            f"below {self.recipe.lr:g}, or --nan skip; {path} holds the pictures"
        )

    def best_row(self) -> dict[str, float]:
        return max(self.history, key=lambda row: (row["val_top1"], -row["val_loss"]))

    def save_state(self) -> None:
        """`last.pt`, by the thread of the first process."""
        state = self.state()
        if self.engine.leads:
            self.writer.submit(lambda: save_tensors(self.folder / LAST, state))

    def save_epoch(self) -> None:
        """All files of a finished epoch. The order matters: see seewide.train.checkpoint."""
        row, state = self.history[-1], self.state()
        best = self.best_row() is row
        keep = self.config.keep_every and row["epoch"] % self.config.keep_every == 0
        weights, info = state["ema"] or state["model"], self.info(row["epoch"], row["val_top1"])

        def write() -> None:
            if best:
                save_weights(self.folder / BEST, weights, info)
            if keep:
                save_weights(self.folder / every(row["epoch"]), weights, info)
            save_metrics(self.folder, state["history"])
            save_tensors(self.folder / LAST, state)
            draw_run(state["history"], self.folder / CURVES)

        if self.engine.leads:
            self.writer.submit(write)
        skipped = f"  {row['skipped']} updates skipped" if row["skipped"] else ""
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.recipe.epochs}  loss {row['train_loss']:.3f}  "
            f"val loss {row['val_loss']:.3f}  top-1 {row['val_top1']:6.2f}  "
            f"top-5 {row['val_top5']:6.2f}  lr {row['lr']:.1e}  {row['seconds']:.1f} s"
            f"{'  best' if best else ''}{skipped}",
            markup=False,
        )
