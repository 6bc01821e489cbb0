"""Tar files of webdataset: their pattern, and the number of pairs in each.

open_clip needs `sizes.json` beside the files, or the number of samples on its command line.
"""

from __future__ import annotations

import glob
import json
import re
import tarfile
from pathlib import Path

from seewide.errors import InputError, require, write_atomically

IMAGES = {"jpg", "jpeg", "png", "webp"}


def is_shards(data: str) -> bool:
    """Whether `--data` means tar files: `shard-{000..127}.tar`, `shards/*.tar`, `one.tar`."""
    return data.endswith(".tar")


def list_shards(data: str) -> list[Path]:
    """The files that a pattern with braces or stars names.

    Raises:
        InputError: no such file.
    """
    names = require("braceexpand", "clip").braceexpand(data)
    found = [Path(f) for n in names for f in (sorted(glob.glob(n)) if "*" in n else [n])]
    missing = [str(path) for path in found if not path.is_file()]
    if missing or not found:
        raise InputError(f"there is no tar file {missing[0] if missing else data}")
    return found


def brace_pattern(data: str) -> str:
    """The pattern as open_clip takes it: braces instead of stars."""
    if "*" not in data:
        return data
    paths = [str(path) for path in list_shards(data)]
    return paths[0] if len(paths) == 1 else f"{{{','.join(paths)}}}"


def count_pairs(path: Path) -> int:
    """Number of samples of a tar file that have an image and a text.

    Raises:
        InputError: it is no tar file.
    """
    kinds: dict[str, set[str]] = {}
    try:
        with tarfile.open(path) as archive:
            for member in archive:
                if match := re.fullmatch(r"((?:.*/)?[^/.]+)\.([^/]+)", member.name):
                    kinds.setdefault(match[1], set()).add(match[2].lower())
    except (OSError, tarfile.TarError) as error:
        raise InputError(f"{path} is no tar file: {error}") from None
    return sum("txt" in found and bool(found & IMAGES) for found in kinds.values())


def write_sizes(data: str) -> tuple[int, int]:
    """Write `sizes.json` beside tar files where it is missing.

    Returns:
        Pairs in all files, and the number of files.

    Raises:
        InputError: no tar file, files in several folders, or files without pairs.
    """
    paths = list_shards(data)
    folders = {path.parent for path in paths}
    if len(folders) > 1:
        raise InputError(f"tar files must lie in one folder, got {len(folders)}")
    (folder,) = folders
    known = folder / "sizes.json"
    sizes = json.loads(known.read_text()) if known.is_file() else {}
    missing = [path for path in paths if path.name not in sizes]
    if missing:
        sizes |= {path.name: count_pairs(path) for path in missing}
        text = json.dumps(sizes, indent=1) + "\n"
        write_atomically(known, lambda scratch: scratch.write_text(text))
    total = sum(int(sizes[path.name]) for path in paths)
    if not total:
        raise InputError(f"{data} has no sample with an image and a .txt file")
    return total, len(paths)
