"""What `seewide bench` calls: one function, one kind of run each."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console

from benchmarks import exports, models, ops, revisions, runtimes, serving, sweep, targets
from benchmarks.conditions import Settings
from seewide.errors import InputError, unknown

KINDS: dict[str, Callable[[list[str], Settings, Console], None]] = {
    "ops": ops.run,
    "models": models.run,
    "targets": targets.run,
    "sweep": sweep.run,
    "runtimes": runtimes.run,
    "exports": exports.run,
    "serving": serving.run,
}
WITH_BASE = ("ops", "models")


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
    if base is None and settings.device == "cuda" and kind in WITH_BASE:
        from benchmarks.gpu import run as gpu  # which needs Triton

        gpu.run(console, settings, gpu.Part.of(kind, names), gpu.Budget(gpu.BUDGET))
    elif base is None:
        KINDS[kind](names, settings, console)
    elif kind in WITH_BASE:
        revisions.compare(kind, names, base, settings, console)
    else:
        raise InputError(f"--base goes with {' or '.join(WITH_BASE)}, got {kind!r}")
