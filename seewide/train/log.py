"""The progress of a run: a line while it trains, JSON lines and TensorBoard, curves.

steps.jsonl        one line every few optimizer steps, see `Progress`
tensorboard/       the same and the row of every epoch, if asked for
curves.png         loss, score, learning rate and gradient norm of every epoch
"""

from __future__ import annotations

import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from rich.console import Console

from seewide.errors import InputError, require, write_atomically
from seewide.tasks import Score
from seewide.train.lines import json_line, read_json_lines
from seewide.train.tracking import Tracker

STEPS, TENSORBOARD = "steps.jsonl", "tensorboard"
WINDOW = 20  # optimizer steps that the speed is a mean of
SECONDS = 60  # between two lines of a log file, which has no progress bar


@dataclass(frozen=True)
class Progress:
    """The state of a run after an optimizer step.

    Attributes:
        step: of the whole run, from 1.
        epoch: from 1.
        loss: of this step.
        lr: the largest of all parameter groups.
        grad_norm: of the gradient, before it was clipped.
        samples_per_second: of all processes, the mean of the last steps.
        memory: peak in bytes; of the GPU's allocator, or resident on a CPU.
        seconds_left: of the run, validation included, by its mean speed since it was started.
        unit: what the samples are.
        parts: of the loss, as the task reports them.
    """

    step: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    samples_per_second: float
    memory: int
    seconds_left: float
    unit: str = "images"
    parts: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.3f}  lr {self.lr:.1e}  gradient {self.grad_norm:.2g}  "
            f"{speed(self.samples_per_second)} {self.unit}/s  {self.memory / 2**30:.1f} GB"
        )


class ProgressLogger:
    """Logs a run.

    Args:
        folder: of the run.
        total: optimizer steps of the whole run.
        batch_size: samples of a step, all processes together.
        unit: what the samples are.
        done: steps before the first one here. Lines that a killed run logged beyond them, and
            damaged lines, are removed.
        every: steps from one line of `steps.jsonl` to the next.
        device: whose memory is reported.
        tensorboard: whether to log to TensorBoard too.
        tracker: name of an experiment tracker to log to as well, see `Tracker`.
        console: where a line appears every minute if it is no terminal; None for nowhere.
        clock: returns seconds; for tests.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path,
        total: int,
        batch_size: int,
        *,
        unit: str = "images",
        done: int = 0,
        every: int = 10,
        device: torch.device | str = "cpu",
        tensorboard: bool = False,
        tracker: str = "",
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.total, self.batch_size, self.unit = folder, total, batch_size, unit
        self.done, self.every, self.device = done, every, torch.device(device)
        self.console, self.clock = console, clock
        self._tensorboard = _tensorboard(folder / TENSORBOARD, done) if tensorboard else None
        self._tracker = Tracker(tracker, folder) if tracker else None
        self._done_at_start, self._start = done, clock()
        self._last_line = self._start
        self._times = deque([self._start], maxlen=WINDOW + 1)
        lines = read_json_lines(folder / STEPS, keep_going=True)[0]
        valid = [line for line in lines if line.get("step", done + 1) <= done]
        text = "".join(f"{json_line(line)}\n" for line in valid)
        write_atomically(folder / STEPS, lambda scratch: scratch.write_text(text))

    def step(
        self,
        epoch: int,
        loss: float,
        lr: float,
        grad_norm: float,
        parts: Mapping[str, float] | None = None,
    ) -> Progress:
        """Log a step that is done. The result's text fits beside a progress bar."""
        now = self.clock()
        self.done += 1
        self._times.append(now)
        seconds_each = (now - self._start) / (self.done - self._done_at_start)
        progress = Progress(
            step=self.done,
            epoch=epoch,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            samples_per_second=self._speed(),
            memory=peak_memory(self.device),
            seconds_left=seconds_each * (self.total - self.done),
            unit=self.unit,
            parts=dict(parts or {}),
        )
        if self.done % self.every == 0 or self.done == self.total:
            self._write(progress)
        if self.console is not None and not self.console.is_terminal:
            self._print(progress, now)
        return progress

    def epoch(self, row: Mapping[str, float]) -> None:
        """Log an epoch's row, as `metrics.jsonl` has it; speed is measured from here on."""
        self._times = deque([self.clock()], maxlen=WINDOW + 1)
        if self._tensorboard is not None:
            for name, value in row.items():
                if name != "epoch" and value is not None:
                    self._tensorboard.add_scalar(f"epoch/{name}", value, row["epoch"])
            self._tensorboard.flush()
        if self._tracker is not None:
            self._tracker.log("epoch", {k: v for k, v in row.items() if k != "epoch"}, self.done)

    def close(self) -> None:
        if self._tracker is not None:
            self._tracker.close()
        if self._tensorboard is not None:
            self._tensorboard.close()

    def __enter__(self) -> ProgressLogger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _speed(self) -> float:
        seconds = self._times[-1] - self._times[0]
        return self.batch_size * (len(self._times) - 1) / seconds if seconds > 0 else 0.0

    def _write(self, progress: Progress) -> None:
        row = asdict(progress)
        row |= row.pop("parts")
        del row["unit"]
        try:
            with open(self.folder / STEPS, "a", encoding="utf-8") as file:
                file.write(json_line(row) + "\n")
        except OSError as error:
            raise InputError(f"could not write {self.folder / STEPS}: {error.strerror}") from None
        if self._tensorboard is not None:
            for name, value in row.items():
                if name not in ("step", "epoch", "seconds_left"):
                    self._tensorboard.add_scalar(f"step/{name}", value, progress.step)
        if self._tracker is not None:
            hidden = ("step", "epoch", "seconds_left")
            numbers = {key: value for key, value in row.items() if key not in hidden}
            self._tracker.log("step", numbers, progress.step)

    def _print(self, progress: Progress, now: float) -> None:
        if now - self._last_line < SECONDS:
            return
        self._last_line = now
        self.console.print(
            f"step {progress.step:>{len(str(self.total))}}/{self.total}  {progress}  "
            f"{duration(progress.seconds_left)} left",
            markup=False,
            soft_wrap=True,
        )


def duration(seconds: float) -> str:
    """`0:07`, `12:30`, `3:05:09`, `2 days 4:00:00`"""
    if not math.isfinite(seconds):
        return "?"
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    days, hour = divmod(hours, 24)
    if not hours:
        return f"{minute}:{second:02}"
    clock = f"{hour}:{minute:02}:{second:02}"
    return f"{days} day{'s' * (days > 1)} {clock}" if days else clock


def speed(samples_per_second: float) -> str:
    """`1234`, and `2.5` below ten."""
    return f"{samples_per_second:.{0 if samples_per_second >= 10 else 1}f}"


def peak_memory(device: torch.device) -> int:
    """Peak in bytes: of the allocator of a GPU, or resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":  # has no such count
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def draw_run(history: Sequence[Mapping[str, float]], path: Path, score: Score) -> Path:
    """`curves.png`: loss, score, learning rate and gradient norm over the epochs."""
    from seewide.analysis.figures import Panel, draw_lines

    title = score.label or score.key
    panels = (
        Panel.of("loss", history, ("train_loss", "val_loss")),
        Panel.of(f"{title} ({score.unit})" if score.unit else title, history,
                 (f"val_{score.key}",), digits=1),
        Panel.of("learning rate", history, ("lr",), digits=None),
        Panel.of("gradient norm", history, ("grad_norm",), digits=None),
    )  # fmt: skip
    return draw_lines([panel for panel in panels if any(panel.lines.values())], path)


def _tensorboard(folder: Path, done: int):
    """TensorBoard's writer; what a killed run wrote after `done` steps is hidden."""
    require("tensorboard", extra="tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=done + 1 if done else None)
