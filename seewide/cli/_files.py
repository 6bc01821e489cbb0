"""Files that commands write."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from seewide.errors import write_atomically


def write_csv(path: Path, columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Path:
    """Write a table as CSV."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([columns, *rows])
    return _write(path, text.getvalue())


def write_json(path: Path, content: Any) -> Path:
    """Write JSON values, indented."""
    return _write(path, json.dumps(content, indent=1) + "\n")


def _write(path: Path, text: str) -> Path:
    content = text.encode("utf-8", "backslashreplace")
    return write_atomically(path, lambda scratch: scratch.write_bytes(content))
