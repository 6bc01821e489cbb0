"""Read a checkpoint file: tensors and plain data, bounded, without running any code of it.

`torch.load(weights_only=True)` builds tensors and a few containers. Training scripts of the field
leave more plain data beside the weights (their arguments, numpy numbers, paths). `PLAIN` maps the
names of such types to constructors of this file, which make the nearest plain Python value or an
empty stand-in; the types themselves are never imported or called.
"""

from __future__ import annotations

import argparse
import datetime
import os
import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from ..errors import InputError
from .integrity import check_safetensors, without_checksum

# Under which keys training scripts save the weights, best first.
WRAPPERS = ("state_dict_ema", "model_ema", "model", "state_dict", "module")

# torch.save does not compress, so its files unpack to their own size.
LARGEST_RATIO = 8
EXPORTS = {".onnx": "an ONNX model", ".pt2": "an exported program", ".xml": "an OpenVINO model"}


def read_state_dict(path: str | os.PathLike) -> dict[str, Any]:
    """The content of a checkpoint file, on the CPU.

    Args:
        path: safetensors, or what `torch.save` wrote. A checksum is compared if the file has one:
            that of `save_safetensors`, or the CRC-32 of each entry of torch's archives.

    Raises:
        InputError: no such file, a damaged one, one that unpacks to much more than its size, or
            one with objects other than tensors and plain data.
    """
    try:
        path = Path(path)
        exists = path.is_file()
    except (TypeError, ValueError, OSError) as error:  # None, a NUL byte, a name too long
        raise InputError(f"{path!r} is no path of a checkpoint file: {_line(error)}") from None
    if not exists:
        raise InputError(f"there is no checkpoint file {path}")
    if path.suffix in EXPORTS:
        raise InputError(
            f"{path} is {EXPORTS[path.suffix]}, not a checkpoint; "
            "seewide.export.load_exported runs it"
        )
    try:
        if path.suffix == ".safetensors":
            content = load_file(path)
        else:
            _check_archive(path)
            with torch.serialization.safe_globals(list(PLAIN)), warnings.catch_warnings():
                warnings.simplefilter("ignore")  # about protocols, which may still be readable
                content = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} {_pickle_reason(str(error))}") from None
    except Exception as error:  # parsers fail on damaged bytes in any way
        raise InputError(f"{path} is damaged or is no checkpoint: {_line(error)}") from None
    if path.suffix == ".safetensors":
        check_safetensors(path, content)
        return content
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return without_checksum(content, str(path))


def unwrap(content: Mapping[str, object]) -> dict[str, Tensor]:
    """The state dict inside what a training script saved.

    Removes the prefixes of wrappers: `module.` of DistributedDataParallel and of averaged models,
    and `_orig_mod.` of torch.compile, which may also stand inside a name.

    Raises:
        InputError: no tensors in it, or a dict that contains itself.
    """
    seen = set()
    while True:
        if id(content) in seen:
            raise InputError("the checkpoint is a dict that contains itself")
        seen.add(id(content))
        inner = (content.get(wrapper) for wrapper in WRAPPERS)
        wrapped = next((value for value in inner if isinstance(value, Mapping) and value), None)
        if wrapped is None:
            break
        content = wrapped
    state = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
    if not state:
        raise InputError(f"no tensors in the checkpoint; its keys are {some(map(str, content))}")
    state = {key.replace("_orig_mod.", ""): value for key, value in state.items()}
    averaged = {key: value for key, value in state.items() if key != "n_averaged"}
    while averaged and all(key.startswith("module.") for key in averaged):
        averaged = {key.removeprefix("module."): value for key, value in averaged.items()}
        state = averaged
    return state


def some(keys: Iterable[str], limit: int = 4) -> str:
    """The first few of the sorted keys, each shortened, and how many more there are."""
    keys = sorted(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(_printable(key) for key in keys[:limit]) + more


def _printable(text: str, limit: int = 120) -> str:
    return "".join(c if c.isprintable() else "?" for c in text[:limit])


def _line(error: Exception) -> str:
    """The first line of an error, or its type."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return _printable(lines[0]) if lines else type(error).__name__


def _check_archive(path: Path) -> None:
    """Refuse archives that unpack to much more than they are, or whose bytes have changed."""
    if not zipfile.is_zipfile(path):
        return  # a legacy file of torch, or none at all: torch.load decides
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
        unpacked, size = sum(entry.file_size for entry in entries), path.stat().st_size
        if unpacked > LARGEST_RATIO * size:
            raise InputError(
                f"{path} was refused: its {size / 1e6:.1f} MB unpack to {unpacked / 1e6:,.1f} MB, "
                f"and checkpoints are not compressed (at most {LARGEST_RATIO} times is read)"
            )
        names = {entry.filename.partition("/")[2] for entry in entries}
        if "constants.pkl" in names:
            raise InputError(f"{path} is a TorchScript program, not a checkpoint of tensors")
        if "archive_format" in names:
            raise InputError(f"{path} is an exported program, not a checkpoint of tensors")
        damaged = archive.testzip()
        if damaged is not None:
            raise InputError(
                f"{path} is damaged: the checksum (CRC-32) of {_printable(damaged)} does not match"
            )


def _pickle_reason(message: str) -> str:
    """What is wrong with a file whose pickle was not read."""
    blocked = re.search(r"(?:GLOBAL|unrecognized function|but got) ([^\s].*?)(?: was not| whose|$)",
                        message, re.MULTILINE)  # fmt: skip
    if blocked:
        return (
            f"was refused: it holds {_printable(blocked[1])}, and building anything but tensors "
            "and plain data could run code; save its state dict alone"
        )
    if re.search(r"Unsupported operand 1(49|48|50|4[0-7])|pickle protocol", message):
        return (
            "was not read: it is a pickle of protocol 4 or later; checkpoints are read in the "
            "protocol that torch.save uses by default"
        )
    return "is damaged or is no checkpoint"


class _Stands:
    """An object of a type that is not built; its content is left out."""

    def __init__(self, *args: object) -> None:
        pass

    def __setstate__(self, state: object) -> None:
        pass


class _Dtype:
    """A numpy dtype by its name, such as `f8`."""

    def __init__(self, name: object = "", *flags: object) -> None:
        self.name, self.order = str(name), "="

    def __setstate__(self, state: tuple) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self.order = state[1]


def _numpy_scalar(dtype: object = None, data: Any = None) -> object:
    """A numpy scalar as the Python number (text, date) that it is."""
    if not isinstance(dtype, _Dtype) or dtype.name[:1] not in "biufcUSmM":
        return _Stands()
    raw = data.encode("latin1") if isinstance(data, str) else data
    return np.frombuffer(raw, np.dtype(dtype.name).newbyteorder(cast(Any, dtype.order)))[0].item()


def _plain_dict(*args: object) -> dict:
    return {}


def _posix_path(*parts: str) -> PurePath:
    return PurePosixPath(*parts)


def _windows_path(*parts: str) -> PurePath:
    return PureWindowsPath(*parts)


def _plain() -> list[tuple[Callable | type, str]]:
    entries: list[tuple[Callable | type, str]] = [
        (_plain_dict, "collections.defaultdict"),
        (argparse.Namespace, "argparse.Namespace"),
        (argparse.Namespace, "types.SimpleNamespace"),
        (_Dtype, "numpy.dtype"),
        (_Stands, "numpy.ndarray"),
        (datetime.datetime, "datetime.datetime"),
        (datetime.date, "datetime.date"),
        (datetime.timedelta, "datetime.timedelta"),
    ]
    for module in ("numpy._core.multiarray", "numpy.core.multiarray"):
        entries += [(_numpy_scalar, f"{module}.scalar"), (_Stands, f"{module}._reconstruct")]
    for module in ("pathlib", "pathlib._local"):
        entries += [(_posix_path, f"{module}.{n}Path") for n in ("Posix", "PurePosix", "")]
        entries += [(_windows_path, f"{module}.{n}Path") for n in ("Windows", "PureWindows")]
    # Types as values: the factory of a defaultdict. They are not called, so stand-ins do.
    entries += [(_Stands, f"builtins.{n}") for n in ("int", "float", "str", "bool", "list", "dict")]
    return entries


PLAIN = _plain()
