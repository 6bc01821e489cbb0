"""Checkpoints are written by a thread while training goes on; a folder belongs to one process."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from torch import Tensor

from seewide.errors import InputError, remove_unfinished

LOCK = "run.lock"


class Writer:
    """Runs jobs in a thread, one at a time; an error of a job is raised by the next call."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._job: Future | None = None

    def submit(self, job: Callable[[], object]) -> None:
        """Start a job once the previous one is done."""
        self.wait()
        self._job = self._thread.submit(job)

    def wait(self) -> None:
        """Wait until nothing is being written.

        Raises:
            InputError: what the job raised.
        """
        job, self._job = self._job, None
        if job is not None:
            try:
                job.result()
            except InputError as error:
                raise InputError(f"{error}; the previous checkpoint is intact") from error

    def close(self) -> None:
        """Wait, and end the thread."""
        try:
            self.wait()
        finally:
            self._thread.shutdown()


def to_cpu_copy(state: Any) -> Any:
    """A copy of a nested state on the CPU that further training does not change."""
    if isinstance(state, Tensor):
        return state.detach().to("cpu", copy=True)
    if isinstance(state, dict):
        return {key: to_cpu_copy(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(to_cpu_copy, state))
    return state


class FolderLock:
    """Keeps a second run out of a folder. The operating system releases it when the process ends.

    Raises:
        InputError: another process holds it; the sentence names the host and the process.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / LOCK
        self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 - open as long as the run
        if not _lock(self._file):
            self._file.seek(0)
            owner = self._file.read(200).strip() or "another process"
            self._file.close()
            raise InputError(f"{folder} is in use by {owner}; choose another --out or wait for it")
        self._file.truncate(0)
        self._file.write(json.dumps({"host": socket.gethostname(), "process": os.getpid()}) + "\n")
        self._file.flush()
        remove_unfinished(folder)

    def release(self) -> None:
        self._file.close()

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def _lock(file: Any) -> bool:
    """Lock a file for this process; False if another one has it."""
    try:
        if os.name == "nt":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
