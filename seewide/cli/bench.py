"""`seewide bench`: how fast, measured here."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Annotated

import typer

from seewide.errors import InputError


def bench(
    what: Annotated[
        str, typer.Argument(metavar="ops|models|targets|sweep", help="What is measured.")
    ],
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[NAME...]", help="Operators or networks. Default: all."),
    ] = None,
    quick: Annotated[bool, typer.Option(help="A few cases, under a minute, no files.")] = False,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Of the CPU. Default: torch's own choice.")
    ] = None,
    base: Annotated[
        str | None,
        typer.Option(metavar="REV", help="Compare with this git revision, in turns."),
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16 or float16.")] = "float32",
    compiled: Annotated[
        bool, typer.Option("--compile", help="Models: also under torch.compile.")
    ] = False,
) -> None:
    """Time operators and networks against stock PyTorch and their rivals, in one run.

    \b
    seewide bench ops depthwise --quick
    seewide bench ops dcnv3 --base HEAD~3
    seewide bench models unireplknet_t

    Needs the project's checkout, whose benchmarks/ it runs and into which it writes its results.
    """
    from seewide.train.console import make_console

    console = make_console()
    if not console.is_terminal:
        console.width = 200
    _benchmarks().run(
        what, names or [], quick=quick, threads=threads, base=base, device=device, dtype=dtype,
        compiled=compiled, console=console,
    )  # fmt: skip


def _benchmarks():
    """The module benchmarks.run of the checkout that this package lies in."""
    root = Path(__file__).parents[2]
    if not (root / "benchmarks" / "run.py").is_file():
        raise InputError(
            f"bench runs from a checkout of the project; {root} has no benchmarks beside the "
            "installed package"
        )
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    return importlib.import_module("benchmarks.run")
