"""What happens on the way: a request to stop, a loss that is no number, a disk that is slow.

A checkpoint is a snapshot in memory, which a thread writes while the training goes on; so a run
stands still for a copy, not for a disk.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate

from seewide.errors import InputError
from seewide.train.checkpoint import save_tensors

NAN = ("stop", "skip")
MOST_SKIPS = 10  # updates in a row; a network that is lost does not come back


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what is kept and how to go on."""


class Terminated(Exception):
    """SIGTERM during training: everything is saved, and the message says how to go on."""


class Writer:
    """Runs jobs in a thread, one at a time; what goes wrong surfaces at the next call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future | None = None

    def submit(self, job: Callable[[], object]) -> None:
        """Begin a job when the one before is done."""
        self.wait()
        self._job = self._thread.submit(job)

    def wait(self) -> None:
        """Until nothing is being written; raises what the job raised."""
        job, self._job = self._job, None
        if job is not None:
            try:
                job.result()
            except InputError as error:
                raise InputError(f"{error}; the checkpoint before it is kept") from error

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def snapshot(state: Any) -> Any:
    """A copy on the CPU that further training does not touch."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: snapshot(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(snapshot, state))
    return state


class Termination:
    """Inside, SIGTERM no longer kills: `asked` becomes true, and the run saves and ends.

    Handlers belong to the main thread; in another one the signal does what it did before.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Termination:
        self._in_main = threading.current_thread() is threading.main_thread()
        if self._in_main:
            self._before = signal.signal(signal.SIGTERM, self._ask)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._in_main:
            signal.signal(signal.SIGTERM, self._before)

    def _ask(self, number: int, frame: object) -> None:
        self.asked = True


class Patience:
    """What to do about updates whose loss or gradient is no finite number.

    Args:
        nan: `stop`, or `skip`: leave out the update, and stop after MOST_SKIPS in a row.
        model: its buffers, such as the means of batch norms, are as before a skipped update.
    """

    def __init__(self, nan: str, model: nn.Module) -> None:
        if nan not in NAN:
            raise InputError(f"--nan must be {' or '.join(NAN)}, got {nan!r}")
        self.skips = nan == "skip"
        self.model = model
        self.in_a_row = 0
        self._buffers: list[Tensor] = []

    def before(self) -> None:
        """Called before the passes of an update."""
        if self.skips:
            self._buffers = [buffer.clone() for buffer in self.model.buffers()]

    def endures(self, finite: bool) -> bool:
        """Whether the run goes on after an update; if that was not finite, with old buffers."""
        self.in_a_row = 0 if finite else self.in_a_row + 1
        if finite:
            return True
        for buffer, old in zip(self.model.buffers(), self._buffers, strict=bool(self._buffers)):
            buffer.copy_(old)
        return self.skips and self.in_a_row < MOST_SKIPS


def keep_batch(
    path: Path, pictures: Dataset, keys: Sequence[tuple[int, int]], facts: dict[str, Any]
) -> Path:
    """Write the pictures of a batch, drawn once more, for whoever wants to know what it was.

    The file holds `x_NCHW` and `y_N` as they were before mixup, `keys` of (epoch, index), and the
    `facts`; `torch.load(path, weights_only=True)` reads it.
    """
    x_NCHW, y_N = default_collate([pictures[key] for key in keys])[:2]
    save_tensors(path, {"x_NCHW": x_NCHW, "y_N": y_N, "keys": torch.tensor(keys), **facts})
    return path
