"""A checksum at the end of exported files, whose formats have none.

    .onnx   one more entry of the model's metadata, which protobuf allows to be appended
    .xml    (OpenVINO) a comment after the root element; it covers the `.bin` file too

The checksum is the SHA-256 of all bytes before it. Other programs read the files as before, and
files of other programs, which have no such end, are accepted.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path

from ..errors import InputError
from .integrity import CHECKSUM

SEALED = (".onnx", ".xml")
DIGITS = 64

# Field 14 of ONNX's ModelProto, `metadata_props`, holding a key (field 1) and a value (field 2).
_KEY = b"\x0a" + bytes([len(CHECKSUM)]) + CHECKSUM.encode() + b"\x12" + bytes([DIGITS])
_ONNX = b"\x72" + bytes([len(_KEY) + DIGITS]) + _KEY
_XML = f"\n<!-- {CHECKSUM} ".encode()
_ENDS = {".onnx": (_ONNX, b""), ".xml": (_XML, b" -->\n")}


def seal(path: str | os.PathLike) -> None:
    """Append the checksum to a file that has just been written; nothing for other formats.

    An OpenVINO file has its `.bin` file beside it.
    """
    path = Path(path)
    if path.suffix in SEALED:
        start, end = _ENDS[path.suffix]
        with open(path, "rb+") as file:
            digits = _digest(path, file.read()).encode()
            file.write(start + digits + end)


def check_seal(path: str | os.PathLike) -> bool:
    """Compare the checksum at the end of a file, if there is one, with that of its content.

    Returns:
        Whether the file has a checksum.

    Raises:
        InputError: they differ.
    """
    path = Path(path)
    if path.suffix not in SEALED:
        return False
    start, end = _ENDS[path.suffix]
    content = path.read_bytes()
    tail = re.search(re.escape(start) + rb"([0-9a-f]{64})" + re.escape(end) + rb"\Z", content)
    if tail is None:
        return False
    if tail[1].decode() != _digest(path, content[: tail.start()]):
        raise InputError(
            f"{path} is damaged: its content does not match the checksum at its end; "
            "use another copy or export it again"
        )
    return True


def _digest(path: Path, content: bytes) -> str:
    digest = hashlib.sha256(content)
    if path.suffix == ".xml":
        weights = path.with_suffix(".bin")
        digest.update(weights.read_bytes() if weights.is_file() else b"")
    return digest.hexdigest()
