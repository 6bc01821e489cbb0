"""A report in a folder of its own: its figures and numbers lie beside the page, to be used again.

book = Workbook("Two networks", "What they see.", "out")
book.keep_table("cost", ["network", "M parameters"], [("a", 4.65), ("b", 48.7)])
book.keep_figure("erf", lambda path: draw_erf(fields, path), "Effective receptive fields.")
book.close()  # out/index.html, cost.csv, numbers.json, erf.png, erf.svg
"""

from __future__ import annotations

import csv
import json
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

from seewide.analysis.pictures import short
from seewide.analysis.report import Report
from seewide.errors import write_atomically


class Workbook(Report):
    """A report whose tables are also CSV files and JSON, its figures also PNG and SVG files.

    Attributes:
        folder: where they go.
        numbers: name -> the table's columns and rows, with all digits.
    """

    def __init__(self, title: str, lead: str, folder: str | os.PathLike):
        super().__init__(title, lead)
        self.folder = Path(folder)
        self.numbers: dict[str, list[list[object]]] = {}

    def keep_table(
        self, name: str, columns: Sequence[str], rows: Sequence[Sequence], shown: bool = True
    ) -> None:
        """Three digits on the page, unless it is not `shown` there; all of them in the files."""
        if shown:
            self.table(columns, [[_shown(cell) for cell in row] for row in rows])
        self.numbers[name] = [list(row) for row in [columns, *rows]]

        def write(path: Path) -> None:
            with path.open("w", newline="", encoding="utf-8") as file:
                csv.writer(file, lineterminator="\n").writerows(self.numbers[name])

        write_atomically(self.folder / f"{name}.csv", write)

    def keep_figure(self, name: str, draw: Callable[[Path], Path], caption: str) -> None:
        """What `draw(path)` saves, as PNG and SVG."""
        stem = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)
        draw(self.folder / f"{stem}.svg")
        self.figure(draw(self.folder / f"{stem}.png"), caption)

    def close(self) -> Path:
        """Write numbers.json and the page; returns the page."""
        numbers = json.dumps(_finite(self.numbers), indent=1)
        write_atomically(self.folder / "numbers.json", lambda file: file.write_text(numbers))
        return self.save(self.folder / "index.html")


def _shown(cell: object) -> object:
    if not isinstance(cell, float):
        return cell
    return "-" if math.isnan(cell) else short(cell)


def _finite(tree: object) -> object:
    """JSON has no NaN."""
    if isinstance(tree, dict):
        return {key: _finite(value) for key, value in tree.items()}
    if isinstance(tree, list):
        return [_finite(value) for value in tree]
    return None if isinstance(tree, float) and not math.isfinite(tree) else tree
