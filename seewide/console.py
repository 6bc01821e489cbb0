"""What the user sees: tables, aligned lines, and bars in a terminal; plain text in a log file.

Names of files and classes are printed as they are: markup in them means nothing, and control
characters and undecodable bytes appear as escapes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table
from rich.text import Text

from seewide.errors import printable

T = TypeVar("T")
LOG_WIDTH = 100


def make_console(*, stderr: bool = False) -> Console:
    """Colours in a terminal; in a file none, 100 columns, and no control codes."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=LOG_WIDTH, no_color=True)
    return console


def say(text: object = "", console: Console | None = None) -> None:
    """Print a line as it is, however long."""
    (console or make_console()).print(printable(text), markup=False, soft_wrap=True)


def complain(sentence: object) -> None:
    """Print a line on stderr."""
    print(f"seewide: {printable(sentence)}", file=sys.stderr)


def print_facts(console: Console | None = None, **values: object) -> None:
    """Aligned `name  value` lines, never cut."""
    width = max(map(len, values))
    for name, value in values.items():
        say(f"{name.replace('_', ' '):<{width}}  {value}", console)


class PlainTable(Table):
    """A table whose cells are values, not markup."""

    def add_row(self, *cells: Any, **style: Any) -> None:
        super().add_row(*(Text(_cell(value)) for value in cells), **style)


def make_table(title: str, *columns: str, left: Sequence[str] = ()) -> Table:
    """A table with numbers to the right; columns named in `left` hold words."""
    table = PlainTable(title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.title = Text(printable(title)) if title else None
    table.padding = (0, 2, 0, 0)
    for column in columns:
        justify = "left" if column in left else "right"
        table.add_column(Text(column), justify=justify, overflow="fold")
    return table


def print_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    caption: str = "",
    no_wrap: bool = False,
) -> None:
    """Print a table; columns whose cells are all numbers are aligned to the right.

    Args:
        no_wrap: whether the first column has names to copy.
    """
    rows = [list(row) for row in rows]
    words = [
        column
        for index, column in enumerate(columns)
        if not all(_is_numeric(_cell(row[index])) for row in rows)
    ]
    table = make_table(title, *columns, left=words)
    table.caption = Text(printable(caption)) if caption else None
    table.columns[0].no_wrap = no_wrap
    for row in rows:
        table.add_row(*row)
    make_console().print(table)


def _cell(value: Any) -> str:
    """Four significant digits; `-` for None and NaN."""
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else printable(value)


def _is_numeric(text: str) -> bool:
    try:
        float(text.rstrip("%"))
    except ValueError:
        return text == "-"
    return True


def make_progress(console: Console) -> Progress:
    """A bar with its count, the time left, and a `note` (say, the loss); nothing in a log file."""
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim", markup=False),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        expand=True,
    )


@contextmanager
def bars() -> Iterator[Any]:
    """`start(what, steps)` shows one more bar and returns the function that advances it."""
    with make_progress(make_console()) as progress:

        def start(what: str, steps: int) -> Any:
            name = printable(what)
            return partial(progress.advance, progress.add_task(name, total=steps, note=""))

        yield start


def track(
    things: Iterable[T], description: str, console: Console, total: int | None = None
) -> Iterator[T]:
    """Iterate under a bar that goes away at the end."""
    with make_progress(console) as progress:
        total = len(things) if total is None else total  # type: ignore[arg-type]
        bar = progress.add_task(description, total=total, note="")
        for thing in things:
            yield thing
            progress.advance(bar)
