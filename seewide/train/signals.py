"""Requests to stop: SIGTERM and SIGHUP save the run and end it; Ctrl-C ends it at once."""

from __future__ import annotations

import signal
import threading
from types import TracebackType

STOPPING = [getattr(signal, name) for name in ("SIGTERM", "SIGHUP") if hasattr(signal, name)]


class Interrupted(KeyboardInterrupt):
    """Ctrl-C during training; the message says what was saved and how to resume."""


class Terminated(Exception):
    """SIGTERM or SIGHUP during training: everything is saved, and the message says how to resume.

    Attributes:
        signal: its number; the exit code of a process is 128 more.
    """

    def __init__(self, message: str, signal: int = signal.SIGTERM) -> None:
        super().__init__(message)
        self.signal = signal


class StopRequest:
    """A context in which SIGTERM and SIGHUP only set `signal`, for the loop to save and end.

    Handlers belong to the main thread; in another one the signals do what they did before.
    """

    default = signal.SIGTERM  # what a process reports that stops because another one was asked to

    def __init__(self) -> None:
        self.signal = 0
        self._handlers: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            self._handlers = {number: signal.signal(number, self._request) for number in STOPPING}
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)

    def is_set(self) -> bool:
        """Whether the process got one of the signals."""
        return bool(self.signal)

    def _request(self, number: int, frame: object) -> None:
        self.signal = number
