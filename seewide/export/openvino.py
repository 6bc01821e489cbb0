"""OpenVINO's intermediate representation: `model.xml` and, beside it, `model.bin`.

In float32, float16 weights, or int8 calibrated on images. bfloat16 is no kind of file: it is
asked for when a file is opened (`open_model(path, precision="bf16")`). `metadata` lies in the
model's runtime information under "seewide".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewide.checkpoints import seal
from seewide.errors import InputError, require
from seewide.export.common import (
    Outputs,
    Prepared,
    Runner,
    export_program,
    first_line,
    one_sentence,
    outputs,
    quiet,
)

# Operators that int8 leaves in float, per family. NNCF's defaults quantize the sum of squares of
# the global response normalization, after which a quarter of UniRepLKNet-A's answers differ
# (flowers, 644 images: 75.6% agreement, 99.1% with this list).
GRN = ("Power", "ReduceSum", "Sqrt", "Divide", "ReduceMean", "Multiply", "Add", "MVN")
FLOAT_OPERATORS: dict[str, tuple[str, ...]] = {
    "unireplknet": GRN,
    "convnextv2": GRN,
    "lsnet": (*GRN, "GroupNormalization", "SoftMax", "GatherND", "Gather"),
    "uniconvnet": (*GRN, "GridSample", "SoftMax"),
    "pelk": GRN,
    "replknet": ("Add",),
    "slak": ("Add", "MVN"),
}


def write(prepared: Prepared, path: Path, half: bool = False) -> Runner:
    """Write the model in float32, or with weights in float16; returns what runs it."""
    openvino = require("openvino", extra="openvino")
    program = export_program(prepared, "openvino")
    with one_sentence("openvino", prepared.free_size), quiet():
        model = openvino.convert_model(program.run_decompositions())
    return save(model, path, prepared.properties, half)


def write_int8(
    prepared: Prepared, path: Path, images: Sequence[Tensor], family: str = ""
) -> Runner:
    """Write the model in int8, calibrated on images (C, H, W); returns what runs it."""
    openvino = require("openvino", extra="openvino")
    nncf = require("nncf", extra="openvino")
    program = export_program(prepared, "openvino")
    every = sorted({name for names in FLOAT_OPERATORS.values() for name in names})
    names = FLOAT_OPERATORS.get(family, every)  # all of them where the family is not known
    with one_sentence("openvino int8", prepared.free_size), quiet():
        model = openvino.convert_model(program.run_decompositions())
        model = nncf.quantize(
            model,
            nncf.Dataset([image[None].numpy() for image in images]),
            subset_size=len(images),
            ignored_scope=nncf.IgnoredScope(types=list(names), validate=False),
        )
    return save(model, path, prepared.properties, False)


def save(model: Any, path: Path, properties: dict[str, str], half: bool) -> Runner:
    """Write `path` (.xml) and its .bin."""
    openvino = require("openvino", extra="openvino")
    for key, value in properties.items():
        model.set_rt_info(value, ["seewide", key])
    with quiet():
        openvino.save_model(model, path, compress_to_fp16=half)
    seal(path)
    return open_model(path)[0]


def open_model(
    path: Path, precision: str = "f32", threads: int | None = None
) -> tuple[Runner, dict[str, str]]:
    """What runs the file, and its metadata.

    Args:
        precision: of the arithmetic, "f32" or "bf16".

    Raises:
        InputError: a file that OpenVINO does not read, or no `.bin` beside it.
    """
    openvino = require("openvino", extra="openvino")
    core = openvino.Core()
    options: dict[str, Any] = {"INFERENCE_PRECISION_HINT": precision}
    if threads is not None:
        options["INFERENCE_NUM_THREADS"] = threads
    try:
        model = core.read_model(path)
        metadata = {}
        if model.has_rt_info(["seewide"]):
            info = model.get_rt_info(["seewide"])
            for key in info.value if hasattr(info, "value") else info:
                metadata[key] = str(model.get_rt_info(["seewide", key]).value)
        compiled = core.compile_model(model, "CPU", options)
    except RuntimeError as error:
        raise InputError(
            f"{path} is no OpenVINO file that runs here: {first_line(error)}"
        ) from None

    def run(x: Tensor) -> Outputs:
        found = compiled([x.detach().cpu().numpy()])
        return outputs([torch.from_numpy(found[port].copy()) for port in compiled.outputs])

    return run, metadata
