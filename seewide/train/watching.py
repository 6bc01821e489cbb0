"""Watching a run: a line while it trains, JSON lines and TensorBoard, curves.

    updates.jsonl      one line every few updates, see `Reading`
    tensorboard/       the same and every epoch's row, where it is asked for
    curves.png         loss, accuracy, learning rate and gradient norm of every epoch

The loop makes one `Watch` on the process that writes, and says what happens:

    with Watch(folder, recipe.epochs * updates, batch_size, done=..., console=console) as watch:
        note = watch.update(epoch, loss, lr, norm)    # after each update; beside the bar
        watch.epoch(row)                              # after each epoch, once its row is complete
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.console import Console

from seewide.errors import InputError, require, write_atomically

UPDATES, TENSORBOARD = "updates.jsonl", "tensorboard"
WINDOW = 20  # updates that the speed is a mean of
SECONDS = 60  # between two lines of a log file, which has no bar


@dataclass(frozen=True)
class Reading:
    """What a run says of itself after an update.

    Attributes:
        update: of the whole run, from 1.
        epoch: from 1.
        loss: of this update.
        lr: the largest of all parameter groups.
        grad_norm: of the whole gradient, before it was clipped.
        images_per_second: all processes together, the mean of the last updates.
        memory: bytes at most so far; of the GPU's allocator, or resident on a CPU.
        seconds_left: of the run, validation included; from its mean pace since it was started.
    """

    update: int
    epoch: int
    loss: float
    lr: float
    grad_norm: float
    images_per_second: float
    memory: int
    seconds_left: float

    def __str__(self) -> str:
        return (
            f"loss {self.loss:.3f}  lr {self.lr:.1e}  gradient {self.grad_norm:.2g}  "
            f"{pace(self.images_per_second)} images/s  {self.memory / 2**30:.1f} GB"
        )


class Watch:
    """Eyes on a run that is going on.

    Args:
        folder: of the run.
        total_updates: of the whole run.
        batch_size: pictures of an update, all processes together.
        done: updates before the first one here. What a killed run noted beyond them is taken back.
        every: updates from one line of `updates.jsonl` to the next.
        device: whose memory counts.
        tensorboard: whether TensorBoard gets it all too.
        console: where a line appears every minute if it is no terminal; None for nowhere.
        clock: seconds, for tests.

    Raises:
        InputError: TensorBoard is asked for and not installed.
    """

    def __init__(
        self,
        folder: Path,
        total_updates: int,
        batch_size: int,
        *,
        done: int = 0,
        every: int = 10,
        device: torch.device | str = "cpu",
        tensorboard: bool = False,
        console: Console | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder, self.total, self.batch_size = folder, total_updates, batch_size
        self.done, self.every, self.device = done, every, torch.device(device)
        self.console, self.clock = console, clock
        self._board = _board(folder / TENSORBOARD, done) if tensorboard else None
        self._begun, self._begun_at = done, clock()
        self._said_at = self._begun_at
        self._times = deque([self._begun_at], maxlen=WINDOW + 1)
        keep = [
            line for line in read_lines(folder / UPDATES)[0] if line.get("update", done + 1) <= done
        ]
        text = "".join(json.dumps(line) + "\n" for line in keep)
        write_atomically(folder / UPDATES, lambda scratch: scratch.write_text(text))

    def update(self, epoch: int, loss: float, lr: float, grad_norm: float) -> Reading:
        """Note an update that is done. The reading's text fits beside a bar."""
        now = self.clock()
        self.done += 1
        self._times.append(now)
        seconds_each = (now - self._begun_at) / (self.done - self._begun)
        reading = Reading(
            update=self.done,
            epoch=epoch,
            loss=loss,
            lr=lr,
            grad_norm=grad_norm,
            images_per_second=self._speed(),
            memory=peak_memory(self.device),
            seconds_left=seconds_each * (self.total - self.done),
        )
        if self.done % self.every == 0 or self.done == self.total:
            self._note(reading)
        if self.console is not None and not self.console.is_terminal:
            self._say(reading, now)
        return reading

    def epoch(self, row: Mapping[str, float]) -> None:
        """Note an epoch's row, as `metrics.jsonl` has it; the speed is measured from here on."""
        self._times = deque([self.clock()], maxlen=WINDOW + 1)
        if self._board is not None:
            for name, value in row.items():
                if name != "epoch":
                    self._board.add_scalar(f"epoch/{name}", value, row["epoch"])
            self._board.flush()

    def close(self) -> None:
        if self._board is not None:
            self._board.close()

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _speed(self) -> float:
        seconds = self._times[-1] - self._times[0]
        return self.batch_size * (len(self._times) - 1) / seconds if seconds > 0 else 0.0

    def _note(self, reading: Reading) -> None:
        row = asdict(reading)
        try:
            with open(self.folder / UPDATES, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
        except OSError as error:
            raise InputError(f"could not write {self.folder / UPDATES}: {error.strerror}") from None
        if self._board is not None:
            for name in ("loss", "lr", "grad_norm", "images_per_second", "memory"):
                self._board.add_scalar(f"update/{name}", row[name], reading.update)

    def _say(self, reading: Reading, now: float) -> None:
        if now - self._said_at < SECONDS:
            return
        self._said_at = now
        self.console.print(
            f"update {reading.update:>{len(str(self.total))}}/{self.total}  {reading}  "
            f"{duration(reading.seconds_left)} left",
            markup=False,
            soft_wrap=True,
        )


def read_lines(path: Path) -> tuple[list[dict], int | None]:
    """The rows of a file of JSON lines, and the number of the first that is damaged, if any.

    Nothing after a damaged line counts: it is what a kill or a full disk has left.
    """
    rows: list[dict] = []
    if not path.is_file():
        return rows, None
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            row = json.loads(line)
        except ValueError:
            return rows, number
        if not isinstance(row, dict):
            return rows, number
        rows.append(row)
    return rows, None


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


def pace(images_per_second: float) -> str:
    """`1234`, and `2.5` below ten."""
    return f"{images_per_second:.{0 if images_per_second >= 10 else 1}f}"


def peak_memory(device: torch.device) -> int:
    """Bytes at most: given out by the allocator of a GPU, or resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    if sys.platform == "win32":  # has no such count
        return 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def draw_run(history: Sequence[Mapping[str, float]], path: Path) -> Path:
    """`curves.png`: loss, accuracy, learning rate and gradient norm over the epochs."""
    from seewide.analysis.pictures import Panel, draw_lines

    panels = (
        Panel.of("loss", history, ("train_loss", "val_loss")),
        Panel.of("accuracy (%)", history, ("val_top1", "val_top5"), digits=1),
        Panel.of("learning rate", history, ("lr",), digits=None),
        Panel.of("gradient norm", history, ("grad_norm",), digits=None),
    )
    return draw_lines([panel for panel in panels if any(panel.lines.values())], path)


def _board(folder: Path, done: int):
    """TensorBoard's writer; what a killed run wrote after `done` updates is hidden."""
    require("tensorboard", extra="tensorboard")
    from torch.utils.tensorboard import SummaryWriter

    return SummaryWriter(str(folder), purge_step=done + 1 if done else None)
