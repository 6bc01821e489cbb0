"""Open any exported file again: one callable, with the metadata that travels in it."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from seewide.checkpoints import check_seal
from seewide.errors import InputError
from seewide.export import coreml, executorch, onnx, openvino, pt2
from seewide.export.common import Outputs, first_line


@dataclass(frozen=True)
class Exported:
    """A network in an exported file.

    Attributes:
        format: "onnx", "openvino", "pt2", "aoti" or "executorch".
        metadata: text that was written with it: class names, preprocessing, producer ...

    Calling it takes a float32 tensor (N, C, H, W) and returns the outputs as a tuple of tensors.
    """

    path: Path
    format: str
    metadata: dict[str, str]
    run: Callable[[Tensor], Outputs] = field(repr=False)

    @property
    def input(self) -> tuple[int | str, ...]:
        """The shape of the input, such as ("N", 3, 224, 224); letters are free axes."""
        axes = self.metadata.get("input", "N,C,H,W").split(",")
        return tuple(int(axis) if axis.isdigit() else axis for axis in axes)

    def __call__(self, images: Tensor) -> Outputs:
        """Run the network.

        Raises:
            InputError: a shape that the file does not take.
        """
        shape = self.input
        fits = images.ndim == len(shape) and all(
            isinstance(want, str) or have == want
            for have, want in zip(images.shape, shape, strict=True)
        )
        if not fits:
            wanted = ", ".join(map(str, shape))
            raise InputError(
                f"{self.path.name} takes images of shape ({wanted}), got {tuple(images.shape)}"
            )
        with torch.no_grad():
            try:
                return self.run(images.float())
            except (RuntimeError, ValueError) as error:
                raise InputError(
                    f"{self.path.name} failed on images of shape {tuple(images.shape)}: "
                    f"{first_line(error)}"
                ) from error


SUFFIXES = (".onnx", ".xml", ".pt2", ".pte", ".mlpackage")


def load_exported(path: str | os.PathLike, threads: int | None = None) -> Exported:
    """Open a file of `export_model`.

    Args:
        path: ends in `.onnx`, `.xml` (OpenVINO, with its `.bin` beside it), `.pt2` (torch.export
            or AOTInductor), `.pte` (ExecuTorch) or `.mlpackage` (Core ML, runs on macOS alone).
        threads: of the runtime, where it can be told; None for its default.

    Raises:
        InputError: no such file, another ending, a damaged file, or a runtime that is missing.
    """
    path = Path(path)
    if path.suffix not in SUFFIXES:
        raise InputError(f"an exported network ends in one of {', '.join(SUFFIXES)}, got {path}")
    if not path.exists():
        raise InputError(f"there is no exported network {path}")
    check_seal(path)
    if path.suffix == ".onnx":
        session = onnx.open_session(path, threads)
        return Exported(path, "onnx", onnx.metadata_of(session), onnx.runner(session))
    if path.suffix == ".xml":
        return Exported(path, "openvino", *_swapped(openvino.open_model(path, threads=threads)))
    if path.suffix == ".pte":
        return Exported(path, "executorch", *_swapped(executorch.load(path)))
    if path.suffix == ".mlpackage":
        return Exported(path, "coreml", *_swapped(coreml.load(path)))
    try:
        with zipfile.ZipFile(path) as archive:
            compiled = any("/aotinductor/" in name for name in archive.namelist())
            damaged = archive.testzip()
        if damaged is not None:
            raise InputError(f"{path} is damaged: the checksum of {damaged!r} does not match")
        kind, load = ("aoti", pt2.load_aoti) if compiled else ("pt2", pt2.load)
        return Exported(path, kind, *_swapped(load(path)))
    except InputError:
        raise
    except Exception as error:  # parsers fail on damaged bytes in any way
        raise InputError(
            f"{path} is damaged or is no exported network: {first_line(error)}"
        ) from None


def _swapped(pair: tuple) -> tuple:
    return pair[1], pair[0]
