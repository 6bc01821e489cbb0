"""`python -m benchmarks.gpu` (or `make bench-gpu`): every figure of the GPU work, in ten minutes.

    python -m benchmarks.gpu                     # all of it, on the GPU here; writes results/gpu-*
    python -m benchmarks.gpu --lsnet CHECKOUT    # beside the kernel of LSNet's authors
    python -m benchmarks.gpu code                # no GPU: registers, spills, shared memory

Triton compiles a few configurations for each shape. Before anything is timed, processes that only
call fill its cache, in parallel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Annotated
from unittest import mock

import torch
import triton
import typer
from rich.console import Console

from benchmarks.conditions import Settings, describe, write_csv
from benchmarks.gpu import cases, networks, operators
from benchmarks.gpu.aims import judge
from benchmarks.gpu.clock import Budget, Limits
from seewide.errors import InputError
from seewide.train.console import make_console, make_table

BUDGET = 540.0  # seconds
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
            run(console, settings, Budget(seconds), lsnet)


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


@app.command(hidden=True)
def warm(index: int, workers: int) -> None:
    """Call every `workers`-th case, once with each configuration."""
    from seewide.kernels.triton import aggregation, deformable, direct, toeplitz

    def try_all(kernel, shapes, configs, run, device):
        for config in configs:
            run(config)
        return configs[0]

    modules = (aggregation, deformable, direct, toeplitz)
    for module in modules:
        mock.patch.object(module, "choose", try_all).start()
    jobs: list[Callable[[], object]] = [
        *(partial(operators.warm, case, "cuda") for case in all_cases(None)),
        *(partial(networks.warm, name, "cuda") for name in networks.OURS),
    ]
    for job in jobs[index::workers]:
        try:
            job()
        except (torch.OutOfMemoryError, triton.runtime.errors.OutOfResources) as error:
            print(f"warm: {error}", file=sys.stderr)
        torch.cuda.empty_cache()


def all_cases(lsnet: Path | None) -> list[cases.Case]:
    """Of the operators, in the order of their importance."""
    groups = (cases.depthwise(), cases.aggregation(lsnet), cases.deformable(), cases.table_1())
    return list(chain(*groups))


def run(console: Console, settings: Settings, budget: Budget, lsnet: Path | None) -> None:
    """Compile, measure, judge, print and write."""
    workers = max(1, min(14, (os.cpu_count() or 2) - 2))
    warming = [sys.executable, "-m", "benchmarks.gpu", "warm"]
    processes = [subprocess.Popen([*warming, str(index), str(workers)]) for index in range(workers)]
    for process in processes:
        try:
            process.wait(timeout=max(1.0, 0.4 * budget.seconds))
        except subprocess.TimeoutExpired:
            process.kill()
    torch.backends.cudnn.benchmark = True
    limits = Limits.measure(settings.device)
    order = all_cases(lsnet)
    important = [case for case in order if case.section != "table 1"]
    ops = list(operators.measure(important, limits, settings.device, budget))
    _table(console, "operators", operators.COLUMNS, ops)
    nets = list(networks.measure(settings.device, budget))
    _table(console, "networks", networks.COLUMNS, nets)
    curve = [case for case in order if case.section == "table 1"]
    ops += operators.measure(curve, limits, settings.device, budget)
    write_csv("gpu-operators", operators.COLUMNS, [row.cells() for row in ops], settings)
    write_csv("gpu-networks", networks.COLUMNS, [row.cells() for row in nets], settings)
    aims = [(what, figure, "yes" if met else "no") for what, figure, met in judge(ops, nets)]
    write_csv("gpu-aims", ("aim", "figure", "met"), aims, settings)
    table = make_table("aims", "aim", "figure", "met", left=("aim", "figure"))
    for aim in aims:
        table.add_row(*aim)
    console.print(table)
    describe(settings, console)
    speeds = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {speed / 1e12:.0f}"
        for dtype, speed in limits.operations.items()
    )
    console.print(f"Triton {triton.__version__}; a copy moves {limits.bytes / 1e12:.2f} TB/s; "
                  f"matrix products reach, in TFLOP/s, {speeds}")  # fmt: skip
    for what in budget.left_out:
        console.print(f"left out, the time was up: {what}")


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence) -> None:
    table = make_table(title, *columns, left=columns[:4])
    for row in rows:
        table.add_row(*map(str, row.cells()))
    console.print(table)


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
