"""Whether a file is intact: read completely, with all checksums that its format has."""

from __future__ import annotations

import json
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path

from ..errors import InputError
from .integrity import verify
from .reading import read_state_dict
from .sealing import SEALED, check_seal

INTACT, DAMAGED, UNCHECKED = "intact", "damaged", "no checksum"
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class FileReport:
    """What is known of a file.

    Attributes:
        verdict: "intact" (all its checksums match), "damaged", or "no checksum" (it can be read,
            as far as its format is known, and nothing more can be said).
        detail: a sentence or a few words.
    """

    path: Path
    verdict: str
    detail: str = ""

    @property
    def size(self) -> int:
        """Bytes on the disk."""
        return self.path.stat().st_size if self.path.exists() else 0


def check_file(path: Path) -> FileReport:
    """Check weights, a checkpoint, an exported network, a figure or a table.

    Raises:
        InputError: no such file.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        checked, detail = _check(path)
    except InputError as error:
        return FileReport(path, DAMAGED, str(error))
    except OSError as error:
        return FileReport(path, DAMAGED, f"it cannot be read: {error.strerror or error}")
    return FileReport(path, INTACT if checked else UNCHECKED, detail)


def _check(path: Path) -> tuple[bool, str]:
    """Whether the file has a checksum, which matches, and some words."""
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        sentence = verify(path)
        return "no checksum" not in sentence, sentence.removeprefix(f"{path}: ")
    if suffix in (".pt", ".pth", ".bin", ".ckpt") and not path.with_suffix(".xml").is_file():
        content = read_state_dict(path)
        return zipfile.is_zipfile(path), f"{len(content)} entries"
    if suffix in SEALED:
        return check_seal(path), "an exported network"
    if suffix == ".bin":
        return check_seal(path.with_suffix(".xml")), "weights of the OpenVINO file beside it"
    if suffix == ".pt2":
        check_zip(path)
        return True, "an exported program"
    if suffix == ".png":
        check_png(path)
        return True, "a figure"
    if suffix == ".json":
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise InputError(f"it is not valid JSON: {error}") from None
    return False, ""


def check_zip(path: Path) -> None:
    """Compare the CRC-32 of all entries of a zip archive.

    Raises:
        InputError: one differs, or the file is no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # the parser fails on damaged bytes in any way
        raise InputError(f"it is damaged or is no archive: {error}") from None
    if damaged is not None:
        raise InputError(f"the checksum (CRC-32) of {damaged} does not match")


def check_png(path: Path) -> None:
    """Compare the CRC-32 of all chunks of a PNG file.

    Raises:
        InputError: one differs, or the file has no end.
    """
    content, position = path.read_bytes(), len(PNG)
    if not content.startswith(PNG):
        raise InputError("it does not begin as a PNG file does")
    kind = b""
    while kind != b"IEND":
        length = int.from_bytes(content[position : position + 4], "big")
        kind = content[position + 4 : position + 8]
        end = position + 8 + length
        if content[end : end + 4] != zlib.crc32(content[position + 4 : end]).to_bytes(4, "big"):
            raise InputError(f"the checksum (CRC-32) at byte {min(end, len(content))} is wrong")
        position = end + 4
    if position != len(content):
        raise InputError(f"{len(content) - position} bytes follow its end")
