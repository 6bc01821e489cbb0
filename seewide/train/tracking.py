"""Experiment trackers: wandb, mlflow, trackio and others, as accelerate drives them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import tracking

from seewide.errors import InputError, unknown


class Tracker:
    """Sends numbers to an experiment tracker, from the main process.

    The tracker's own configuration (account, address, project) is that of its environment
    variables and files; the project is `seewide` where these say nothing.

    Args:
        name: as accelerate spells it: wandb, mlflow, trackio, comet_ml, aim, clearml, dvclive,
            swanlab.
        folder: of the run, whose name the tracker shows.

    Raises:
        InputError: an unknown tracker, one that is not installed, or one that does not start.
    """

    def __init__(self, name: str, folder: Path) -> None:
        known = {str(key): kind for key, kind in tracking.LOGGER_TYPE_TO_CLASS.items()}
        if name not in known:
            raise unknown("tracker", name, known)
        kind: Any = known[name]
        arguments: dict[str, Any] = {"wandb": {"name": folder.name}}.get(name, {})
        if kind.requires_logging_directory:
            arguments["logging_dir"] = str(folder / name)
        try:
            self._tracker = kind("seewide", **arguments)
            start = getattr(self._tracker, "start", None)  # absent in accelerate below 1.9
            if start is not None:
                start()
        except ImportError:
            raise InputError(f"{name} is not installed; `pip install {name}` brings it") from None
        except Exception as error:  # no account, no connection: each tracker has its own errors
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise InputError(f"{name} does not start: {reason}") from None

    def log(self, prefix: str, values: Mapping[str, float | None], step: int) -> None:
        """Send the numbers; those that are missing or None are left out."""
        numbers = {f"{prefix}/{key}": value for key, value in values.items() if value is not None}
        self._tracker.log(numbers, step=step)

    def close(self) -> None:
        self._tracker.finish()
