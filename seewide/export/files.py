"""Exported formats that are several files."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from seewide.errors import InputError


def write_several(path: Path, write: Callable[[Path], None]) -> None:
    """`write_atomically` for formats of two files or a folder: all of them or none."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
            write(Path(folder) / path.name)
            for file in sorted(Path(folder).iterdir(), reverse=True):  # model.xml after model.bin
                target = path.parent / file.name
                if target.is_dir():
                    shutil.rmtree(target)
                os.replace(file, target)
    except OSError as error:
        raise InputError(f"could not write {path}: {error.strerror or error}") from error


def size_of(path: Path) -> int:
    """Bytes of the file, of OpenVINO's pair, or of the folder."""
    if path.is_dir():
        return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    beside = path.with_suffix(".bin") if path.suffix == ".xml" else path
    return path.stat().st_size + (beside.stat().st_size if beside != path else 0)
