"""What the user sees: bars in a terminal, plain lines of 100 columns in a log file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table

T = TypeVar("T")
LOG_WIDTH = 100


def make_console(*, stderr: bool = False) -> Console:
    """Colours in a terminal; in a file none, 100 columns, and no control codes."""
    console = Console(stderr=stderr, highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(stderr=stderr, highlight=False, width=LOG_WIDTH, no_color=True)
    return console


def make_progress(console: Console) -> Progress:
    """A bar with its count, the time left, and a `note` (say, the loss); nothing in a log file."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[note]}", style="dim"),
        console=console,
        disable=not console.is_terminal,
        transient=True,
        expand=True,
    )


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


def make_table(title: str, *columns: str, left: Sequence[str] = ()) -> Table:
    """A table with numbers to the right; columns named in `left` hold words."""
    table = Table(
        title=title or None, title_justify="left", title_style="bold", box=None, pad_edge=False
    )
    table.padding = (0, 2, 0, 0)
    for column in columns:
        table.add_column(column, justify="left" if column in left else "right", overflow="fold")
    return table


def print_facts(console: Console, **values: object) -> None:
    """Aligned `name  value` lines, never cut."""
    width = max(map(len, values))
    for name, value in values.items():
        line = f"{name.replace('_', ' '):<{width}}  {value}"
        console.print(line, markup=False, soft_wrap=True)
