"""A fused model as one file that other programs run, refused unless it computes the same numbers.

`export_model` fuses the branches (`seewide.fuse`), writes the file, reads it back as its user
would, and compares the outputs with those of the model it was called with. One file per runtime:

    onnx          ONNX Runtime and everything that reads ONNX
    openvino      OpenVINO (.xml and .bin), float32; openvino_f16 with weights in float16
    pt2, aoti     PyTorch without this package: torch.export, and compiled by AOTInductor
    executorch    phones; coreml  Apple's devices
    safetensors   the fused weights alone

`export_int8` writes onnx_int8 and openvino_int8, which need images to calibrate on.

`load_exported(path)` opens any of them again.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path

from torch import Tensor, nn

from seewide.checkpoints import seal
from seewide.errors import InputError, unknown, write_atomically
from seewide.export import coreml, executorch, onnx, openvino, pt2, weights
from seewide.export.common import (
    LARGEST_BY_PRECISION,
    LARGEST_DEVIATION,
    Axes,
    ExportReport,
    Prepared,
    Runner,
    prepare,
)
from seewide.export.files import size_of, write_several
from seewide.export.fourier import RUNTIMES, Choice, rewrite
from seewide.export.int8 import Int8Report, quantize
from seewide.export.loading import Exported, load_exported
from seewide.export.quantized import INT8_FORMATS, export_int8
from seewide.reparam import fuse

__all__ = [
    "FORMATS",
    "INT8_FORMATS",
    "RUNTIMES",
    "SUFFIX",
    "Choice",
    "ExportReport",
    "Exported",
    "Int8Report",
    "export_int8",
    "export_model",
    "load_exported",
    "quantize",
]

SUFFIX = {
    "onnx": ".onnx", "pt2": ".pt2", "safetensors": ".safetensors", "openvino": ".xml",
    "openvino_f16": ".xml", "aoti": ".pt2", "executorch": ".pte", "coreml": ".mlpackage",
}  # fmt: skip
FORMATS = tuple(SUFFIX)
FIXED_SIZE = ("executorch", "coreml")  # these take no free size

_WRITERS: dict[str, Callable[[Prepared, Path], Runner | None]] = {
    "onnx": onnx.write,
    "pt2": pt2.write,
    "aoti": pt2.write_aoti,
    "openvino": openvino.write,
    "openvino_f16": lambda prepared, path: openvino.write(prepared, path, half=True),
    "executorch": executorch.write,
    "coreml": coreml.write,
}


def export_model(
    model: nn.Module,
    path: str | os.PathLike,
    format: str,
    example: Tensor,
    metadata: Mapping[str, str] | None = None,
    free_size: bool = False,
    for_runtime: str | None = None,
    *,
    axes: Axes | None = None,
) -> ExportReport:
    """Fuse `model`, write it to `path`, read it back and compare; `model` itself is not changed.

    Args:
        model: fused or not, on any device; its evaluation mode is exported.
        path: has the ending that SUFFIX names for the format. Replaced in one step.
        format: one of FORMATS.
        example: (N, C, H, W), a typical input. N is free in the file (but for ExecuTorch and Core
            ML), the rest is fixed unless `free_size`.
        metadata: what a reader needs to know: class names, mean and std, image size.
        free_size: height and width are free as well; the file is then compared at three sizes,
            and its declared input shape is checked.
        for_runtime: "onnxruntime", "openvino", "web" or "auto": write large depthwise kernels as
            the graph that this runtime computes fastest; see `seewide.export.fourier`. The
            report's notes name what was chosen.
        axes: instead of `free_size`: which axes are free, and the names of the outputs.

    Raises:
        InputError: an unknown format or runtime, a path of another ending, a model that cannot be
            traced with the free axes, or a file whose outputs deviate by more than 1e-4 relative.
            Nothing is left behind then.
    """
    started = time.perf_counter()
    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    path = Path(path)
    if path.suffix != SUFFIX[format]:
        raise InputError(f"a file of format {format} ends in {SUFFIX[format]}, got {path}")
    if free_size and format in FIXED_SIZE:
        raise InputError(f"{format} has no free height and width; leave free_size out")
    if for_runtime is not None and format in ("safetensors", "aoti"):
        raise InputError(f"for_runtime rewrites graphs of runtimes, and {format} is none of them")
    axes = axes or Axes(size=free_size)
    prepared = prepare(model, example, metadata, axes, for_runtime or "")
    notes = {}
    if for_runtime is not None:
        rewritten, choices = rewrite(prepared.model, prepared.inputs[0], for_runtime, free_size)
        prepared = replace(prepared, model=rewritten)
        notes = {f"layers {i + 1}": str(choice) for i, choice in enumerate(choices)}
    found = []

    def write(scratch: Path) -> None:
        if format == "safetensors":
            run: Runner | None = weights.write(
                prepared, scratch, fuse(copy.deepcopy(model).cpu(), example.cpu())
            )
        else:
            run = _WRITERS[format](prepared, scratch)
        if run is not None:
            limit = LARGEST_BY_PRECISION["f16"] if format.endswith("f16") else LARGEST_DEVIATION
            found.append(prepared.check(run, format, limit))
        if format == "onnx":
            seal(scratch)  # OpenVINO's writer seals its two files itself

    if format == "openvino" or format == "openvino_f16" or format == "coreml":
        write_several(path, write)
    else:
        write_atomically(path, write)
    if not found:
        notes["compared"] = "no: it does not run on this machine"
    max_abs, max_rel = (found[0].max_abs, found[0].max_rel) if found else (0.0, 0.0)
    seconds = time.perf_counter() - started
    shapes = tuple(tuple(x.shape) for x in prepared.inputs) if found else ()
    return ExportReport(path, format, max_abs, max_rel, size_of(path), seconds, shapes, notes)
