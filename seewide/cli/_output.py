"""What commands print: tables, aligned lines, and progress bars in a terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from seewide.errors import write_atomically

if TYPE_CHECKING:
    from rich.console import Console

    from seewide.analysis.subject import Progress
    from seewide.tasks import ResultTable


def printable(text: object) -> str:
    """Text for a terminal: control characters and undecodable bytes become escapes."""
    return "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode()
        for c in str(text)
    )


def console() -> Console:
    """Colours in a terminal; plain lines of 100 columns in a file."""
    from seewide.console import make_console

    return make_console()


def say(text: object) -> None:
    """Print one line as it is, however long."""
    console().print(printable(text), markup=False, soft_wrap=True)


def facts(**values: object) -> None:
    """Print aligned `name  value` lines."""
    width = max(map(len, values))
    for name, value in values.items():
        say(f"{name.replace('_', ' '):<{width}}  {value}")


def show_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    caption: str = "",
    no_wrap: Sequence[str] = (),
) -> None:
    """Print a table. Columns of numbers are aligned to the right."""
    from rich.table import Table
    from rich.text import Text

    cells = [[cell(value) for value in row] for row in rows]
    table = Table(title_justify="left", title_style="bold", box=None, pad_edge=False)
    table.title = Text(printable(title)) if title else None
    table.caption = Text(printable(caption)) if caption else None
    table.padding = (0, 2, 0, 0)
    for index, column in enumerate(columns):
        numeric = all(_numeric(row[index]) for row in cells)
        table.add_column(
            Text(column),
            justify="right" if numeric and cells else "left",
            overflow="fold",
            no_wrap=column in no_wrap,
        )
    for row in cells:
        table.add_row(*(Text(printable(text)) for text in row))
    console().print(table)


def show_results(tables: Iterable[ResultTable], limit: int = 30) -> None:
    """Print tables of results; of long ones the first rows."""
    for table in tables:
        rows = list(table.rows)
        cut = f" (first {limit} of {len(rows)} rows)" if len(rows) > limit else ""
        show_table(f"{table.title}{cut}", table.columns, rows[:limit])
        say("")


def cell(value: Any) -> str:
    """A value in a table: four significant digits, `-` for what does not exist."""
    if value is None or value != value:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _numeric(text: str) -> bool:
    try:
        float(text.rstrip("%"))
    except ValueError:
        return text == "-"
    return True


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(columns)
    writer.writerows(rows)
    return write_text(path, text.getvalue())


def write_json(path: Path, content: Any) -> Path:
    """Write JSON values, indented."""
    return write_text(path, json.dumps(content, indent=1) + "\n")


def write_text(path: Path, text: str) -> Path:
    """Write a text file at once or not at all."""
    content = text.encode("utf-8", "backslashreplace")
    return write_atomically(path, lambda scratch: scratch.write_bytes(content))


@contextmanager
def bars() -> Iterator[Progress]:
    """`progress(what, steps)` shows one more bar and returns the function that advances it."""
    from seewide.console import make_progress

    with make_progress(console()) as progress:

        def start(what: str, steps: int):
            return partial(progress.advance, progress.add_task(what, total=steps, note=""))

        yield start
