"""Checksums: a changed bit in a file of weights is noticed when the file is read.

The checksum is a SHA-256 over names, dtypes, shapes and bytes of all tensors and over all text
beside them. Safetensors carry it in their metadata, dicts that `torch.save` writes in a key.
"""

from __future__ import annotations

import argparse
import datetime
import hashlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from ..errors import InputError, write_atomically

CHECKSUM = "seewide_sha256"  # the key, in the metadata of safetensors and in dicts


def checksum(content: Any) -> str:
    """SHA-256 (64 hexadecimal digits) of tensors, numbers, text and containers of them.

    The order of keys in a mapping does not count; that of a list does. A tensor counts by dtype,
    shape and bytes, wherever it is stored and whatever its strides. Takes 0.4 to 1 s per GB.

    Raises:
        InputError: an object of another type, or a container that contains itself.
    """
    digest = hashlib.sha256()
    _feed(digest, content, ())
    return digest.hexdigest()


def with_checksum(content: Mapping[str, Any]) -> dict[str, Any]:
    """`content` and its checksum under the key `CHECKSUM`, to be written by `torch.save`."""
    plain = {key: value for key, value in content.items() if key != CHECKSUM}
    return {**plain, CHECKSUM: checksum(plain)}


def without_checksum(content: Mapping[str, Any], origin: str = "the checkpoint") -> dict[str, Any]:
    """What `with_checksum` was called with; content that has no checksum is returned as it is.

    Raises:
        InputError: the checksum is another than that of the content.
    """
    plain = {key: value for key, value in content.items() if key != CHECKSUM}
    if CHECKSUM in content:
        _compare(content[CHECKSUM], checksum(plain), origin)
    return plain


def save_safetensors(
    path: str | os.PathLike,
    state: Mapping[str, Tensor],
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a state dict as safetensors whose metadata has a checksum; replaces in one step.

    Args:
        path: ends in `.safetensors`.
        state: tensors on any device; tensors that share memory are written once each.
        metadata: text for the header of the file.

    Raises:
        InputError: the disk is full or the folder cannot be written.
    """
    content = safetensors_bytes(state, metadata)
    return write_atomically(path, lambda scratch: scratch.write_bytes(content))


def safetensors_bytes(state: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> bytes:
    """What `save_safetensors` writes."""
    own, seen = {}, set()
    for key, value in state.items():
        tensor = value.detach().cpu().contiguous()
        place = tensor.untyped_storage().data_ptr()
        # Safetensors refuses tensors that share memory, as tied weights do.
        own[key] = tensor.clone() if place in seen or _is_view(tensor) else tensor
        seen.add(place)
    header = {key: value for key, value in (metadata or {}).items() if key != CHECKSUM}
    header[CHECKSUM] = checksum({"tensors": own, "metadata": header})
    return save(own, metadata=header)


def read_metadata(path: str | os.PathLike) -> dict[str, str]:
    """The metadata in the header of a safetensors file; its tensors are not read.

    Raises:
        InputError: a damaged file, or none of safetensors.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0][:120]
        raise InputError(f"{path} is damaged or is no safetensors file: {reason}") from None


def check_safetensors(path: Path, state: Mapping[str, Tensor]) -> bool:
    """Compare the checksum in the header, if there is one, with that of what was read.

    Returns:
        Whether the file has a checksum.

    Raises:
        InputError: they differ.
    """
    header = read_metadata(path)
    found = header.pop(CHECKSUM, None)
    if found is not None:
        _compare(found, checksum({"tensors": dict(state), "metadata": header}), str(path))
    return found is not None


def verify(path: str | os.PathLike) -> str:
    """Read a checkpoint file completely and say in one sentence what was checked.

    Raises:
        InputError: no such file, or a damaged one.
    """
    from .reading import read_state_dict

    path = Path(path)
    read_state_dict(path)
    if path.suffix == ".safetensors":
        checked = CHECKSUM in read_metadata(path)
    else:
        checked = zipfile.is_zipfile(path)  # each entry has a CRC-32, which reading compares
    what = "its checksum matches" if checked else "it can be read, and has no checksum to compare"
    return f"{path}: {what}"


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _compare(written: object, computed: str, origin: str) -> None:
    if written != computed:
        raise InputError(
            f"{origin} is damaged: its content has the checksum {computed[:12]}..., not the one "
            "that was written with it; use another copy"
        )


def _is_view(tensor: Tensor) -> bool:
    return tensor.untyped_storage().nbytes() != tensor.nbytes


def _feed(digest: Any, content: Any, parents: tuple[int, ...]) -> None:
    """Add `content` to the digest, each part with its type and length before it."""
    if isinstance(content, Tensor):
        tensor = content.detach().cpu().contiguous()
        digest.update(f"tensor {tensor.dtype} {tuple(tensor.shape)};".encode())
        if tensor.numel():
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        return
    if id(content) in parents:
        raise InputError("no checksum: the content contains itself")
    if isinstance(content, argparse.Namespace):
        content = vars(content)
    if isinstance(content, Mapping):
        digest.update(f"mapping {len(content)};".encode())
        for key in sorted(content, key=lambda key: (type(key).__name__, str(key))):
            _feed(digest, key, parents)
            _feed(digest, content[key], (*parents, id(content)))
    elif isinstance(content, (list, tuple)):
        digest.update(f"sequence {len(content)};".encode())
        for value in content:
            _feed(digest, value, (*parents, id(content)))
    elif isinstance(content, (set, frozenset)):
        _feed(digest, sorted(content, key=repr), parents)
    else:
        data = _scalar(content)
        digest.update(f"{type(content).__name__} {len(data)};".encode() + data)


def _scalar(content: Any) -> bytes:
    if isinstance(content, (bytes, bytearray)):
        return bytes(content)
    plain = (type(None), bool, int, float, complex, str, PurePath, datetime.date,
             datetime.timedelta, torch.dtype, torch.device, torch.layout)  # fmt: skip
    if isinstance(content, plain):
        return repr(content).encode("utf-8", "surrogatepass")
    raise InputError(f"no checksum of a {type(content).__name__}: only tensors and plain data")
