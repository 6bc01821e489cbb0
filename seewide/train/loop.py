"""A run: epoch after epoch, each validated, and saved as often as asked for.

All random numbers follow from (seed, epoch, step, micro-batch) and, for a sample, (seed, epoch,
index). Micro-batches are counted over all processes, and so are the samples. So the state after any
optimizer step is that of the trainer and a position in an epoch: no generator states are saved, a
resumed run ends with the bits of an uninterrupted one on the same machine and CPU threads, and two
processes compute what one does with twice the micro-batches, up to rounding.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import nn

from seewide.console import make_progress, print_facts
from seewide.errors import InputError
from seewide.tasks import DataSplits, Task, find_backbone
from seewide.train.build import count_parameters
from seewide.train.checkpoint import (
    BEST,
    CONFIG,
    CURVES,
    LAST,
    RunConfig,
    WeightsInfo,
    epoch_file,
    save_metrics,
    save_state,
    save_weights,
)
from seewide.train.density import DENSITY, report_density
from seewide.train.evaluate import compute_metric
from seewide.train.feed import Feed
from seewide.train.log import ProgressLogger, draw_run
from seewide.train.memory import reuse_freed_memory
from seewide.train.pages import SAMPLES, draw_labeled_samples
from seewide.train.processes import Processes
from seewide.train.signals import Interrupted, StopRequest, Terminated
from seewide.train.step import StepResult, Trainer
from seewide.train.writer import Writer, to_cpu_copy


@dataclass(frozen=True)
class RunResult:
    """Where a run is and what it reached.

    Attributes:
        folder: of the run.
        epoch: the best one, by the task's score.
        scores: its validation results, such as `{"loss": 0.1, "top1": 97.5, "top5": 100.0}`.
        history: the rows of `metrics.jsonl`.
    """

    folder: Path
    epoch: int
    scores: dict[str, float]
    history: list[dict[str, float]]

    @property
    def best(self) -> Path:
        return self.folder / BEST


@dataclass
class Position:
    """How far an epoch is: steps done, those of them skipped, and sums over the others."""

    step: int = 0
    skipped: int = 0
    loss: float = 0.0
    norm: float = 0.0
    parts: dict[str, float] = field(default_factory=dict)

    def add(self, result: StepResult) -> None:
        self.step += 1
        if not result.finite:
            self.skipped += 1
            return
        self.loss += result.loss
        self.norm += result.norm
        for key, value in result.parts.items():
            self.parts[key] = self.parts.get(key, 0.0) + value

    def mean(self, total: float) -> float:
        return total / max(self.step - self.skipped, 1)


class Run:
    """A run in memory: its parts, and one epoch after the other."""

    def __init__(
        self,
        config: RunConfig,
        folder: Path,
        splits: DataSplits,
        task: Task,
        model: nn.Module,
        processes: Processes,
        console: Console,
    ) -> None:
        self.config, self.folder, self.console, self.processes = config, folder, console, processes
        self.task, self.splits, self.recipe = task, splits, config.recipe
        self.feed = Feed(
            splits, task, self.recipe, config.runtime, config.preprocess, folder, processes, console
        )
        self.steps = self.feed.steps
        self.total = self.recipe.steps or self.recipe.epochs * self.steps
        self.epochs = math.ceil(self.total / self.steps)
        self.trainer = Trainer(
            model, task, self.recipe, config.runtime, processes, self.total, self.steps
        )
        self.writer = Writer()
        self.history: list[dict[str, float]] = []
        self.position = Position()

    def info(self, epoch: int, score: float) -> WeightsInfo:
        config = self.config
        return WeightsInfo(
            model=config.model,
            task=self.task.name,
            options=asdict(self.task.options),
            facts=config.facts,
            preprocess=config.preprocess,
            backbone=self.recipe.architecture,
            epoch=epoch,
            score=score,
            data=config.data,
        )

    def state(self) -> dict[str, Any]:
        """All there is to resume from, as a copy; all processes of a sharded run must call it."""
        position = {
            "epoch": len(self.history),
            "position": asdict(self.position),
            "history": self.history,
        }
        return to_cpu_copy(position | self.trainer.state_dict())

    def load_state(self, state: dict[str, Any]) -> None:
        try:
            self.trainer.load_state_dict(state)
            self.position = Position(**state["position"])
            self.history = state["history"]
        except (KeyError, TypeError, ValueError, RuntimeError, AttributeError) as error:
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"{LAST} of {self.folder} does not fit its {CONFIG}: {reason}"
            ) from None

    def train(self) -> RunResult:
        """The remaining epochs."""
        if self.processes.device.type == "cpu":
            reuse_freed_memory()
        self.announce()
        done = self.steps_done
        if self.processes.is_main_process and not done:
            facts, path = self.config.facts, self.folder / SAMPLES
            draw_labeled_samples(self.task, self.feed.train, facts, path)
        if self.recipe.sparsity and not done:
            self.init_sparsity()
        with (
            StopRequest() as self.stop_request,
            self.make_logger(done) as logger,
            make_progress(self.console) as progress,
        ):
            bar = progress.add_task("training", total=self.total, completed=done, note="")

            def log(epoch: int, result: StepResult) -> None:
                if logger is not None:
                    note = logger.step(epoch, result.loss, result.lr, result.norm, result.parts)
                    progress.update(bar, advance=1, note=str(note))

            try:
                for epoch in range(len(self.history) + 1, self.epochs + 1):
                    if self.out_of_patience():
                        break
                    progress.update(bar, description=f"epoch {epoch}/{self.epochs}")
                    self.train_epoch(epoch, log)
                    if logger is not None:
                        logger.epoch(self.history[-1])
            except KeyboardInterrupt:
                raise Interrupted(
                    f"stopped; {len(self.history)} of {self.epochs} epochs are saved. "
                    f"Resume with: seewide train --resume {self.folder}"
                ) from None
            finally:
                self.writer.close()
        return self.result()

    def result(self) -> RunResult:
        """The best epoch, announced."""
        best, score = self.best_row(), self.task.score
        reached = score.show(best[f"val_{score.key}"])
        self.console.print(
            f"best: {reached}, epoch {best['epoch']}, {self.folder / BEST}",
            markup=False,
            soft_wrap=True,
        )
        scores = {k.removeprefix("val_"): v for k, v in best.items() if k.startswith("val_")}
        return RunResult(self.folder, best["epoch"], scores, self.history)

    @property
    def steps_done(self) -> int:
        return min(len(self.history) * self.steps + self.position.step, self.total)

    def make_logger(self, done: int) -> AbstractContextManager[ProgressLogger | None]:
        """A logger, on the main process."""
        if not self.processes.is_main_process:
            return nullcontext()
        return ProgressLogger(
            self.folder,
            self.total,
            self.recipe.batch_size,
            unit=self.task.unit,
            done=done,
            device=self.processes.device,
            tensorboard=self.config.runtime.tensorboard,
            tracker=self.config.runtime.tracker,
            console=self.console,
        )

    def announce(self) -> None:
        config, recipe, trainer, runtime = (
            self.config, self.recipe, self.trainer, self.config.runtime,
        )  # fmt: skip
        millions = count_parameters(trainer.model.parameters()) / 1e6
        start = "pretrained weights" if runtime.pretrained else runtime.checkpoint or "new weights"
        if self.history or self.position.step:
            start = f"resuming after {self.progress_in_words()}"
        scaled = f" ({recipe.lr:g} per {recipe.lr_batch})" if recipe.lr_batch else ""
        lines: dict[str, object] = {
            "task": self.task.name,
            "model": f"{config.model}, {millions:.2f} M parameters, {start}",
            "data": f"{config.data}: {len(self.feed.train)} {self.task.unit}",
            "held_out": f"{len(self.feed.val)} {self.task.unit}: {self.splits.held_out}",
            "recipe": f"{config.recipe_name}: {self.steps} optimizer steps per epoch, "
            f"{self.epochs} epochs",
            "batch": trainer.batch,
            "lr": f"{recipe.scaled_lr:g}{scaled}",
            "seed": runtime.seed,
            "device": self.processes,
            "run": self.folder,
        }
        if trainer.ema is not None:
            lines["ema"] = f"decay {recipe.ema_decay:g}, at the end {trainer.final_ema_decay():.5g}"
        if recipe.sync_batch_norm and self.processes.device.type != "cuda":
            lines["batch_norm"] = "per process: torch synchronizes it on CUDA only"
        print_facts(self.console, **lines, **self.task.announce(find_backbone(trainer.model)))

    def progress_in_words(self) -> str:
        step = f", step {self.position.step} of {self.steps}" if self.position.step else ""
        return f"epoch {len(self.history)}{step}"

    def init_sparsity(self) -> None:
        """Choose the first masks, and report what they leave."""
        self.trainer.init_sparsity(self.feed.batches(1))
        if self.processes.is_main_process:
            shape = self.task.example(self.config.facts, self.config.preprocess, 1).shape
            report = report_density(self.trainer.sparsity, tuple(shape))
            report.save(self.folder / DENSITY)
            self.console.print(f"sparse    {report}", markup=False, soft_wrap=True)

    def train_epoch(self, epoch: int, log: Callable[[int, StepResult], object]) -> None:
        """The rest of an epoch, its validation, and all files."""
        start_time, first = time.perf_counter(), self.position.step
        last = min(self.steps, self.total - (epoch - 1) * self.steps)
        self.trainer.model.train()
        batches = self.feed.batches(epoch, first)
        result = None
        for number in range(first, last):
            result = self.trainer.step(epoch, number, batches, self.stop_request.is_set)
            if not self.trainer.guard.should_continue(result.finite):
                self.stop_for_nonfinite(epoch, number, result)
            self.position.add(result)
            log(epoch, result)
            if result.stop:
                self.save_and_stop()
            every = self.config.runtime.save_every
            if every and self.position.step % every == 0:
                self.save_state()
        if last == self.steps:
            next(batches, None)  # lets the loader end its epoch
        seconds = time.perf_counter() - start_time
        validated = epoch % self.recipe.val_every == 0 or epoch == self.epochs
        scores = self.validate() if validated else {}
        position, self.position = self.position, Position()
        self.history.append(
            {
                "epoch": epoch,
                "train_loss": position.mean(position.loss),
                **{f"train_{key}": position.mean(value) for key, value in position.parts.items()},
                **{f"val_{key}": value for key, value in scores.items()},
                "lr": self.trainer.schedule.set((epoch - 1) * self.steps + last - 1),
                "grad_norm": position.mean(position.norm),
                "skipped": position.skipped,
                "seconds": round(time.perf_counter() - start_time, 3),
                "samples_per_second": round((last - first) * self.recipe.batch_size / seconds, 1),
            }
        )
        self.save_epoch()

    def validate(self) -> dict[str, float]:
        """The task's metric over all processes. A single process can also be stopped here."""
        metric = compute_metric(
            self.trainer.evaluated,
            self.task,
            self.config.facts,
            self.feed.val_loader,
            self.processes.precision,
            self.feed.val_count,
            self.stop_in_validation if self.processes.ranks == 1 else (lambda: None),
        )
        first, *others = self.processes.gather(metric)
        first.merge(others)
        return first.compute()

    def stop_in_validation(self) -> None:
        if self.stop_request.signal:
            self.save_and_stop()

    def save_and_stop(self) -> None:
        """After SIGTERM or SIGHUP to any process: save, and end."""
        self.save_state()
        self.writer.wait()
        raise Terminated(
            f"stopped by a signal; everything is saved, up to {self.progress_in_words()}. "
            f"Resume with: seewide train --resume {self.folder}",
            self.stop_request.signal or StopRequest.default,
        )

    def stop_for_nonfinite(self, epoch: int, number: int, result: StepResult) -> None:
        """Save the batch, and end."""
        path = self.feed.save_nonfinite(epoch, number, result)
        what = "gradient" if math.isfinite(result.loss) else "loss"
        value = result.norm if what == "gradient" else result.loss
        raise InputError(
            f"the {what} became {value} in epoch {epoch}, step {number + 1}: try a learning rate "
            f"below {self.recipe.lr:g}, or --nan skip; {path} holds the batch"
        )

    def best_row(self) -> dict[str, float]:
        return max(self.history, key=self.task.score.rank)

    def out_of_patience(self) -> bool:
        """Whether the score has not improved for as many validations as the recipe allows."""
        key = f"val_{self.task.score.key}"
        rows = [row for row in self.history if key in row]
        if not self.recipe.patience or not rows:
            return False
        best = max(range(len(rows)), key=lambda index: self.task.score.rank(rows[index]))
        return len(rows) - 1 - best >= self.recipe.patience

    def save_state(self) -> None:
        """`last.pt`, by the thread of the main process."""
        state = self.state()
        if self.processes.is_main_process:
            self.writer.submit(lambda: save_state(self.folder, state))

    def save_epoch(self) -> None:
        """All files of a finished epoch. The order matters: see seewide.train.checkpoint."""
        row, state = self.history[-1], self.state()
        key, every = f"val_{self.task.score.key}", self.config.runtime.keep_every
        best = key in row and self.best_row() is row
        retain = every and row["epoch"] % every == 0
        weights = state["model"] if state["ema"] is None else state["ema"]
        info = self.info(row["epoch"], row.get(key))

        def write() -> None:
            if best:
                save_weights(self.folder / BEST, weights, info)
            if retain:
                save_weights(self.folder / epoch_file(row["epoch"]), weights, info)
            save_metrics(self.folder, state["history"])
            save_state(self.folder, state)
            draw_run(state["history"], self.folder / CURVES, self.task.score)

        if self.processes.is_main_process:
            self.writer.submit(write)
        values = "  ".join(
            f"{name.replace('_', ' ')} {value:.4g}"
            for name, value in row.items()
            if name.startswith(("train_loss", "val_"))
        )
        skipped = f"  {row['skipped']} steps skipped" if row["skipped"] else ""
        self.console.print(
            f"epoch {row['epoch']:>3}/{self.epochs}  {values}  lr {row['lr']:.1e}  "
            f"{row['seconds']:.1f} s{'  best' if best else ''}{skipped}",
            markup=False,
        )
