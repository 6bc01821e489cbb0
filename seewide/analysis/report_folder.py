"""A report in a folder: the HTML page, and beside it its figures and the numbers of its tables.

report = ReportFolder("Two networks", "Cost and receptive field.", "out")
report.save_table("cost", ["network", "M parameters"], [("a", 4.65), ("b", 48.7)])
report.save_figure("erf", lambda path: draw_erf(erfs, path), "Effective receptive fields.")
report.close()  # out/index.html, cost.csv, numbers.json, erf.png, erf.svg
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from seewide.analysis.figures import short
from seewide.analysis.report import Report
from seewide.errors import printable, write_atomically

MAX_STEM = 80  # characters of a figure's file name


class ReportFolder(Report):
    """A report whose tables are also written as CSV and JSON, and its figures as PNG and SVG.

    Args:
        title, lead: see `Report`.
        folder: where the files are written.

    Attributes:
        numbers: name -> columns and rows of the table, unrounded.
    """

    def __init__(self, title: str, lead: str, folder: str | os.PathLike):
        super().__init__(title, lead)
        self.folder = Path(folder)
        self.numbers: dict[str, list[list[object]]] = {}
        self._stems: set[str] = set()

    def save_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence], shown: bool = True
    ) -> None:
        """Write `name`.csv, and show the table on the page with three significant digits.

        Args:
            name: of the file and of the entry in numbers.json.
            columns, rows: of the table.
            shown: False writes the files only.

        Raises:
            InputError: a row of another length, or the file cannot be written.
        """
        if shown:
            self.table(columns, [[_rounded(cell) for cell in row] for row in rows])
        self.numbers[name] = [list(map(_escaped, row)) for row in [columns, *rows]]

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(self.numbers[name])

        write_atomically(self.folder / f"{name}.csv", write)

    def save_figure(self, name: str, draw: Callable[[Path], Path], caption: str) -> None:
        """Write the figure as PNG and SVG, and show it on the page.

        Args:
            name: of the files; characters other than letters, digits, `-`, `_` and `.` become `-`,
                and a number is appended if another figure has the name.
            draw: draws the figure to a path.
            caption: below the figure.
        """
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:MAX_STEM]
        candidates = (f"{stem}-{i}" if i > 1 else stem for i in range(1, len(self._stems) + 2))
        stem = next(candidate for candidate in candidates if candidate not in self._stems)
        self._stems.add(stem)
        draw(self.folder / f"{stem}.svg")
        self.figure(draw(self.folder / f"{stem}.png"), caption)

    def close(self) -> Path:
        """Write numbers.json and index.html; returns the path of the latter."""
        numbers = json.dumps(_without_nan(self.numbers), indent=1)
        write_atomically(self.folder / "numbers.json", lambda file: file.write_text(numbers))
        return self.save(self.folder / "index.html")


def _rounded(cell: object) -> object:
    if not isinstance(cell, float):
        return cell
    return "-" if math.isnan(cell) else short(cell)


def _escaped(cell: object) -> object:
    return printable(cell) if isinstance(cell, str) else cell


def _without_nan(tree: object) -> object:
    """NaN and infinite values become None, since JSON has none."""
    if isinstance(tree, dict):
        return {key: _without_nan(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_without_nan(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
