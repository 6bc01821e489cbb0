"""The application all commands belong to, its guard, and the options that several share."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Annotated

import typer

from seewide.errors import InputError

INPUT_ERROR, INTERRUPTED = 2, 130

app = typer.Typer(
    help="Large-kernel vision: from pictures to a trained, merged and exported network.",
    epilog="Begin with: seewide train unireplknet_a --data digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(function: Callable, alone: bool = False) -> None:
    """Register a command whose InputErrors are one line on stderr and exit code 2.

    Without any argument it shows its help, unless it says something `alone`.
    """

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except InputError as error:
            complain(str(error))
            raise typer.Exit(INPUT_ERROR) from None

    app.command(function.__name__.removesuffix("_"), no_args_is_help=not alone)(guarded)


def complain(sentence: str) -> None:
    """The sentence, on stderr."""
    from seewide.train.console import make_console

    make_console(stderr=True).print(
        f"seewide: {sentence}", markup=False, style="red", soft_wrap=True
    )


Data = Annotated[
    str | None,
    typer.Option(
        help="`digits` (built in), a folder with train/ and val/, or a folder with one folder per "
        "class, of which a fifth is then held out.",
        metavar="digits|DIR",
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps. Default: auto.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that read pictures. Default: by the CPUs.")
]
ImageSize = Annotated[int | None, typer.Option(min=8, help="Side of the pictures in pixels.")]
