"""`python -m benchmarks.gpu` (or `make bench-gpu`): every figure of the GPU work, in ten minutes.

On the GPU here; writes results/gpu-*.csv and docs/performance_gpu.md:

    python -m benchmarks.gpu                     # all of it
    python -m benchmarks.gpu --lsnet CHECKOUT    # beside the kernel of LSNet's authors, too

Without a GPU:

    python -m benchmarks.gpu plan                # what is measured, how long it should take
    python -m benchmarks.gpu code                # registers, spills, shared memory
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.conditions import Settings
from benchmarks.gpu.clock import Budget
from benchmarks.gpu.run import BUDGET, WHOLE, run
from seewide.console import make_console
from seewide.errors import InputError

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.callback(invoke_without_command=True)
def measure(
    context: typer.Context,
    seconds: Annotated[float, typer.Option(help="What comes after is left out, by name.")] = BUDGET,
    lsnet: Annotated[Path | None, typer.Option(help="Checkout of LSNet, for its kernel.")] = None,
) -> None:
    """Operators, networks, aims."""
    if context.invoked_subcommand is None:
        console = make_console()
        console.width = max(console.width, 160)
        with _sentences(console):
            settings = Settings.of(False, "cuda", "bfloat16", None, False)
            if not run(console, settings, WHOLE, Budget(seconds), lsnet):
                raise typer.Exit(1)


@app.command()
def code(
    every: Annotated[bool, typer.Option(help="All candidates, not only the first.")] = False,
    only: Annotated[str, typer.Option(help="Calls whose name matches this.")] = "",
) -> None:
    """Compile for sm_80 and sm_90, on any machine."""
    from benchmarks.gpu.code import ARCHITECTURES
    from benchmarks.gpu.code import run as compile_all

    console = make_console()
    console.width = max(console.width, 160)
    compile_all(console, every, list(ARCHITECTURES), only)


@app.command()
def plan() -> None:
    """What is measured, and how long that should take."""
    from benchmarks.gpu.estimate import show

    show(make_console())


@app.command(hidden=True)
def warm(workers: int, index: int, which: list[str]) -> None:
    """Compile a share of `which`, for the run that started this process."""
    from benchmarks.gpu.run import warm

    warm(workers, index, which)


class _sentences:
    """An InputError ends the program as its one sentence, with exit code 2."""

    def __init__(self, console: Console):
        self.console = console

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind, error, trace) -> None:
        if isinstance(error, InputError):
            self.console.print(str(error), markup=False)
            raise typer.Exit(2) from None


if __name__ == "__main__":
    app()
