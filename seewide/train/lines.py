"""Logs as JSON lines, each with a checksum of its own.

    {"epoch": 1, "train_loss": 2.31, "crc": "1c291ca3"}

`crc` is the CRC-32 of the line without it. A line that a killed process left unfinished, or in
which a bit has changed, is noticed when it is read. Lines without `crc` are accepted in a file that
has none at all (written by hand, or by seewide before 0.2).
"""

from __future__ import annotations

import json
import math
import re
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CRC = "crc"
_TAIL = re.compile(rb', "crc": "([0-9a-f]{8})"\}$')


def json_line(row: Mapping[str, Any]) -> str:
    """A row as a line without its end, that any JSON parser reads: NaN and infinities become null.

    The row is not empty.
    """
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in row.items()
        if key != CRC
    }
    text = json.dumps(finite, allow_nan=False)
    return f'{text[:-1]}, "{CRC}": "{zlib.crc32(text.encode()):08x}"}}'


def read_json_lines(path: Path, keep_going: bool = False) -> tuple[list[dict], int | None]:
    """The rows of a file of JSON lines, and the number of the first damaged one, if any.

    Args:
        keep_going: also return the rows after a damaged one.
    """
    rows: list[dict] = []
    damaged = None
    if not path.is_file():
        return rows, None
    lines = path.read_bytes().splitlines()
    checked = any(_TAIL.search(line) for line in lines)
    for number, line in enumerate(lines, start=1):
        row = _parse(line, checked)
        if row is not None:
            rows.append(row)
            continue
        damaged = damaged or number
        if not keep_going:
            break
    return rows, damaged


def has_checksums(path: Path) -> bool:
    """Whether the lines of a file have checksums."""
    return any(_TAIL.search(line) for line in path.read_bytes().splitlines())


def _parse(line: bytes, checked: bool) -> dict | None:
    """The row of a line; None if it is damaged."""
    tail = _TAIL.search(line)
    if checked and (tail is None or zlib.crc32(line[: tail.start()] + b"}") != int(tail[1], 16)):
        return None
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(row, dict) or (CRC in row and not checked):
        return None
    row.pop(CRC, None)
    return row
