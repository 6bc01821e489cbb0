"""What `--data` says, and which file of this folder opens it."""

from __future__ import annotations

from pathlib import Path

from seewide.errors import InputError
from seewide.train.data.digits import open_digits
from seewide.train.data.folders import open_folder
from seewide.train.data.split import Source


def open_source(data: str | Path) -> Source:
    """`digits`, a folder with `train/` and `val/`, or a folder of classes that is split here.

    Raises:
        InputError: no such folder, or whatever its kind cannot read.
    """
    if str(data) == "digits":
        return open_digits()
    folder = Path(data).expanduser().resolve()
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {data}; --data is `digits`, a folder with train/ and val/, or a "
            "folder with one folder per class"
        )
    return open_folder(folder)
