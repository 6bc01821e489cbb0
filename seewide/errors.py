"""Errors that are one sentence for the user, optional dependencies, and atomic writes."""

from __future__ import annotations

import contextlib
import importlib
import os
import secrets
from collections.abc import Callable, Iterable
from difflib import get_close_matches
from pathlib import Path
from types import ModuleType


def printable(text: object) -> str:
    """The text with everything that a terminal does not show as it is escaped: `\\x1b`, `\\n`.

    That is control characters, line breaks, characters that change the direction of text, and
    bytes of file names that are not UTF-8.
    """
    return "".join(c if c.isprintable() else _escaped(c) for c in str(text))


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00  # how os.fsdecode represents a byte that is not UTF-8
    if 0x80 <= byte <= 0xFF:
        return f"\\x{byte:02x}"
    return character.encode("unicode_escape").decode()


class InputError(ValueError):
    """Bad input. The message is one sentence that shows the value and names what is allowed.

    Names of files may hold anything; the message is made `printable`.
    """

    def __init__(self, message: object = "") -> None:
        super().__init__(printable(message))


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


UNFINISHED = ".writing-"


def write_atomically(path: str | os.PathLike, write: Callable[[Path], object]) -> Path:
    """Call `write(temporary_path)`, then move the result to `path` in one step.

    If anything fails (full disk, Ctrl-C, a failed check inside `write`), `path` keeps its previous
    content and no partial file remains.

    Raises:
        InputError: the operating system cannot write there.
    """
    path = Path(path)
    # The suffix stays, since writers such as matplotlib choose the format by it.
    scratch = path.parent / f"{UNFINISHED}{secrets.token_hex(4)}{path.suffix}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Created with the permissions of an ordinary new file, which the umask decides.
        os.close(os.open(scratch, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o666))
        write(scratch)
        with open(scratch, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(scratch, path)
        return path
    except OSError as error:
        raise InputError(f"could not write {path}: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):
            scratch.unlink(missing_ok=True)


def remove_unfinished(folder: Path) -> None:
    """Remove the temporary files that a killed process left in a folder."""
    for path in folder.glob(f"{UNFINISHED}*"):
        with contextlib.suppress(OSError):
            path.unlink()
