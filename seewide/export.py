"""A merged model as one file that other programs run, refused unless it computes the same numbers.

`export_model` merges the branches (`seewide.fuse`), writes the file, reads it back as its user
would, and compares the outputs with those of the model it was given, at two batch sizes.

* `onnx`: for ONNX Runtime and everything that reads ONNX. One self-contained file; the batch size
  is free; `metadata` lies in the model's `metadata_props`.
* `pt2`: `torch.export`, for PyTorch without this package: `torch.export.load(path).module()`.
  The batch size is free; `metadata` lies in the extra file `metadata.json`.
* `safetensors`: the merged weights alone, `metadata` in the header; for
  `seewide.load_checkpoint(seewide.fuse(model), path)`.
"""

from __future__ import annotations

import contextlib
import copy
import io
import json
import logging
import os
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seewide._version import __version__
from seewide.errors import InputError, require, unknown, write_atomically
from seewide.numerics import Difference, compare, worst

LARGEST_DEVIATION = 1e-4  # relative; float32 forward passes differ by 1e-7 to 1e-5
ONNX_LIMIT = 2_000_000_000  # bytes: a protobuf message ends at 2 GiB

Outputs = tuple[Tensor, ...]


@dataclass(frozen=True)
class ExportReport:
    """What was written and how far its outputs are from the model's.

    `max_abs` is the largest |exported - model|, `max_rel` the same over the largest |model|, each
    the worse of two batch sizes; `seconds` covers merging, writing, reading back and comparing.
    """

    path: Path
    format: str
    max_abs: float
    max_rel: float
    size_bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"{self.path} ({self.format}, {self.size_bytes / 1e6:.1f} MB): largest deviation "
            f"{self.max_abs:.1e}, relative {self.max_rel:.1e}"
        )


def export_model(
    model: nn.Module,
    path: str | os.PathLike,
    format: str,
    example: Tensor,
    metadata: Mapping[str, str] | None = None,
) -> ExportReport:
    """Merge `model`, write it to `path`, read it back and compare; `model` itself stays untouched.

    Args:
        model: in training or merged form, on any device; its evaluation mode is exported.
        path: ends in `.onnx`, `.pt2` or `.safetensors`, as `format` says. Replaced in one step.
        format: "onnx", "pt2" or "safetensors".
        example: (N, C, H, W), a typical input. N is free in the file, the rest is fixed in
            `onnx` and `pt2`.
        metadata: what a reader needs to know: class names, mean and std, image size.

    Raises:
        InputError: an unknown format, a path of another ending, a model that cannot be traced
            with a free batch size, or a file whose outputs deviate by more than 1e-4 relative.
            Nothing is left behind then.
    """
    started = time.perf_counter()
    if format not in _FORMATS:
        raise unknown("export format", format, _FORMATS)
    path = Path(path)
    if path.suffix != f".{format}":
        raise InputError(f"a file of format {format} ends in .{format}, got {path}")
    if example.ndim != 4 or len(example) == 0 or not example.is_floating_point():
        raise InputError(
            f"the example must be floating point of shape (N, C, H, W) with N >= 1, got "
            f"{example.dtype} of shape {tuple(example.shape)}"
        )
    from seewide.reparam import fuse

    original = copy.deepcopy(model).cpu().eval()
    example = example.detach().cpu()
    with torch.no_grad():
        merged = fuse(original, example)
        other = _another_batch(example)
        wanted = [(x, _outputs(original(x))) for x in (example, other)]
    properties = {
        "producer": f"seewide {__version__}",
        "form": "merged",
        "input": f"N,{','.join(str(size) for size in example.shape[1:])}",
        **(metadata or {}),
    }
    deviations: list[Difference] = []

    def write(scratch: Path) -> None:
        with _quiet(), torch.no_grad():
            run = _FORMATS[format](merged, scratch, other, properties)
            deviations.extend(worst(compare(run(x), outputs)) for x, outputs in wanted)
        relative = max(found.max_rel for found in deviations)
        if not relative <= LARGEST_DEVIATION:  # a NaN does not pass
            raise InputError(
                f"not exported: the outputs of the {format} file deviate by {relative:.1e} "
                f"relative, allowed is {LARGEST_DEVIATION:.0e}"
            )

    write_atomically(path, write)
    found = worst(deviations)
    seconds = time.perf_counter() - started
    return ExportReport(path, format, found.max_abs, found.max_rel, path.stat().st_size, seconds)


def _write_onnx(
    merged: nn.Module, path: Path, example: Tensor, metadata: Mapping[str, str]
) -> Callable[[Tensor], Outputs]:
    for module in ("onnx", "onnxscript"):
        require(module, extra="export")
    onnxruntime = require("onnxruntime", extra="export")
    size = sum(tensor.nbytes for tensor in merged.state_dict().values())
    if size > ONNX_LIMIT:
        raise InputError(
            f"{size / 1e9:.1f} GB of weights do not fit one ONNX file, which ends at 2 GB; "
            f"use pt2 or safetensors"
        )
    count = len(_outputs(merged(example)))
    names = ["output"] if count == 1 else [f"output{index}" for index in range(count)]
    with _one_sentence("onnx"):
        program = torch.onnx.export(
            merged, (example,), dynamo=True, verbose=False, dynamic_shapes=_FREE_BATCH,
            input_names=["images"], output_names=names,
        )  # fmt: skip
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces, with the folders of this machine in them
    program.model.metadata_props.update(metadata)
    program.save(str(path), external_data=False)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return lambda x: tuple(torch.from_numpy(y) for y in session.run(None, {"images": x.numpy()}))


def _write_pt2(
    merged: nn.Module, path: Path, example: Tensor, metadata: Mapping[str, str]
) -> Callable[[Tensor], Outputs]:
    with _one_sentence("pt2"):
        program = torch.export.export(merged, (example,), dynamic_shapes=_FREE_BATCH)
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it names the folders of this machine
    with open(path, "wb") as file:  # given a path, the archive would hold the scratch file's name
        torch.export.save(program, file, extra_files={"metadata.json": json.dumps(dict(metadata))})
    loaded = torch.export.load(path).module()
    return lambda x: _outputs(loaded(x))


def _write_safetensors(
    merged: nn.Module, path: Path, example: Tensor, metadata: Mapping[str, str]
) -> Callable[[Tensor], Outputs]:
    from safetensors.torch import load_file, save_file

    # Clones, since safetensors refuses tensors that share memory, as tied weights do.
    weights = {name: tensor.clone().contiguous() for name, tensor in merged.state_dict().items()}
    save_file(weights, path, metadata=dict(metadata))
    fresh = copy.deepcopy(merged)
    for tensor in fresh.state_dict().values():
        tensor.fill_(float("nan") if tensor.is_floating_point() else 0)
    fresh.load_state_dict(load_file(path))
    return lambda x: _outputs(fresh(x))


_FORMATS = {"onnx": _write_onnx, "pt2": _write_pt2, "safetensors": _write_safetensors}
FORMATS = tuple(_FORMATS)
_FREE_BATCH = ({0: torch.export.Dim("batch")},)


def _another_batch(example: Tensor) -> Tensor:
    """One image more than `example`, noise of its mean and spread. Tracing takes it too, since
    a batch of one would be taken for a constant."""
    noise = torch.empty(len(example) + 1, *example.shape[1:], dtype=example.dtype)
    noise.normal_(generator=torch.Generator().manual_seed(0))
    return noise * example.std() + example.mean()


def _outputs(output: Tensor | Outputs | list[Tensor]) -> Outputs:
    """Logits or a list of feature maps, as a tuple."""
    return (output,) if isinstance(output, Tensor) else tuple(output)


@contextlib.contextmanager
def _one_sentence(format: str) -> Iterator[None]:
    """The exporters' errors are pages long; their first line tells the reason."""
    try:
        yield
    except Exception as error:
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
        raise InputError(
            f"this model cannot be exported as {format} with a free batch size: "
            f"{type(error).__name__}: {reason}"
        ) from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporters' progress lines, log records and warnings about their own code."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
