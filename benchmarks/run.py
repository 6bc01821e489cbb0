"""What `seewide bench` calls: one function, one kind of run each."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from benchmarks import models, ops
from benchmarks.conditions import Settings
from seewide.errors import unknown

KINDS: dict[str, Callable[[list[str], Settings, Console], None]] = {
    "ops": ops.run,
    "models": models.run,
}


def run(
    kind: str,
    names: list[str],
    quick: bool,
    threads: int | None,
    base: str | None,
    device: str,
    dtype: str,
    compiled: bool,
    console: Console,
) -> None:
    """Measure.

    Raises:
        InputError: an unknown kind, name, device, dtype or revision.
    """
    if kind not in KINDS:
        raise unknown("benchmark", kind, KINDS)
    settings = Settings.of(quick, device, dtype, threads, compiled)
    KINDS[kind](names, settings, console)
