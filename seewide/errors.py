"""What a user did that cannot work, said in one sentence; and writes that lose nothing."""

from __future__ import annotations

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType


class InputError(ValueError):
    """Bad input. The message is one sentence that shows the value and names what is allowed."""


def require(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra brings it."""
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != module.partition(".")[0]:
            raise  # the module is there, one of its own imports is not
        raise InputError(
            f"{module} is not installed; `pip install seewide[{extra}]` brings it"
        ) from None


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """`unknown("model", "unirepknet_a", names)`: the sentence for a name that is not in a list."""
    known = sorted(known)
    close = get_close_matches(name, known, n=3, cutoff=0.5)
    if close:
        return InputError(f"unknown {kind} {name!r}; did you mean {', '.join(close)}?")
    return InputError(f"unknown {kind} {name!r}; known are {', '.join(known)}")


def write_atomically(path: str | os.PathLike, write: Callable[[Path], object]) -> Path:
    """Call `write(temporary_path)`, then move the result to `path` in one step.

    Whatever goes wrong (full disk, Ctrl-C, a failed check inside `write`), `path` keeps its old
    content and nothing half-written stays behind. A failure of the disk becomes an InputError.
    """
    path = Path(path)
    scratch = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # The suffix stays, since savers such as matplotlib choose the format by it.
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".writing-", suffix=path.suffix)
        os.close(handle)
        scratch = Path(name)
        write(scratch)
        with open(scratch, "rb+") as file:
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        scratch.chmod(0o666 & ~umask)  # mkstemp makes private files
        os.replace(scratch, path)
        return path
    except OSError as error:
        raise InputError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        if scratch is not None:
            with contextlib.suppress(OSError):
                scratch.unlink(missing_ok=True)
