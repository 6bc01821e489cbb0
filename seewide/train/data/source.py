"""What `--data` says, and which file of this folder opens it."""

from __future__ import annotations

import os
from pathlib import Path

from seewide.errors import InputError
from seewide.train.data.digits import open_digits
from seewide.train.data.folders import open_folder
from seewide.train.data.shards import is_shards, open_shards
from seewide.train.data.split import Source, Unsplit
from seewide.train.data.tables import is_table, open_table


def open_source(data: str | Path) -> Source:
    """Pictures to train on and held-out ones; where there are none, some of every class.

    Args:
        data: `digits`; a folder with `train/` and `val/`, or with one folder per class; shards: a
            tar, a pattern of tars, a folder of them; `hf:NAME` or a folder of `datasets`.

    Raises:
        InputError: no such folder, or whatever its kind cannot read.
    """
    return open_unsplit(data).held_out()


def is_plain(data: str | Path) -> bool:
    """Whether it means a folder of folders of pictures, there or not."""
    data = os.path.expanduser(data)
    return not (data == "digits" or is_table(data) or is_shards(data))


def open_unsplit(data: str | Path) -> Unsplit:
    """The same as it is found."""
    if str(data) == "digits":
        return open_digits()
    data = os.path.expanduser(data)
    if is_table(data):
        return open_table(data)
    if is_shards(data):
        return open_shards(data)
    folder = Path(data).resolve()
    if not folder.is_dir():
        raise InputError(
            f"there is no folder {data}; --data is `digits`, a folder with train/ and val/ or with "
            "one folder per class, tar shards (`folder/*.tar`), or a table (`hf:NAME`)"
        )
    return open_folder(folder)
