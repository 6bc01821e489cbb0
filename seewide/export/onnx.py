"""ONNX: for ONNX Runtime and everything that reads ONNX. One self-contained file.

The batch size is free, with `free_size` height and width as well. `metadata` lies in the model's
`metadata_props`.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from seewide.errors import InputError, require
from seewide.export.common import (
    Axes,
    Outputs,
    Prepared,
    Runner,
    first_line,
    free_axes,
    one_sentence,
    outputs,
    quiet,
)

LIMIT = 2_000_000_000  # bytes: a protobuf message ends at 2 GiB
INPUT = "images"


def write(prepared: Prepared, path: Path) -> Runner:
    """Write the file; returns what runs it.

    Raises:
        InputError: more than 2 GB of weights, a model that cannot be traced, or a file that has
            a fixed size on an axis that should be free.
    """
    for module in ("onnx", "onnxscript"):
        require(module, extra="export")
    require("onnxruntime", extra="export")
    model = prepared.model
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    if size > LIMIT:
        raise InputError(
            f"{size / 1e9:.1f} GB of weights do not fit one ONNX file, which ends at 2 GB; "
            "use pt2 or safetensors"
        )
    count = len(prepared.wanted[0])
    names = ["output"] if count == 1 else [f"output{index}" for index in range(count)]
    names = list(prepared.axes.names) or names
    with one_sentence("onnx", prepared.free_size), quiet(), torch.no_grad():
        program = torch.onnx.export(
            model, (prepared.example,), dynamo=True, verbose=False,
            dynamic_shapes=free_axes(prepared), input_names=[INPUT], output_names=names,
        )  # fmt: skip
        for node in program.model.graph.all_nodes():
            node.metadata_props.clear()  # stack traces, with the folders of this machine in them
        program.model.metadata_props.update(prepared.properties)
        program.save(str(path), external_data=False)
    return check_axes(path, prepared.axes)


def check_axes(path: Path, axes: Axes) -> Runner:
    """Open the file and see that its input has the free axes that were asked for.

    The exporter may specialize an axis without an error.
    """
    session = open_session(path)
    shape = session.get_inputs()[0].shape
    wanted = [0] * axes.batch + [2, 3] * axes.size
    fixed = [axis for axis in wanted if isinstance(shape[axis], int)]
    if fixed:
        raise InputError(
            f"not exported: axis {fixed[0]} of the input should be free, but the exporter fixed it "
            f"at {shape[fixed[0]]} (input {shape}); a layer of the model depends on that size"
        )
    return runner(session)


def open_session(path: Path, threads: int | None = None) -> Any:
    """An ONNX Runtime session on the CPU.

    Raises:
        InputError: no such file, or one that ONNX Runtime does not read.
    """
    onnxruntime = require("onnxruntime", extra="export")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only
    if threads is not None:
        options.intra_op_num_threads = threads
    try:
        return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's errors are classes of its extension module
        raise InputError(f"{path} is no ONNX file that runs here: {first_line(error)}") from None


def runner(session: Any) -> Runner:
    """A function from a batch of images to the file's outputs."""
    name = session.get_inputs()[0].name

    def run(x: torch.Tensor) -> Outputs:
        return outputs(session.run(None, {name: x.detach().cpu().numpy()}))

    return run


def metadata_of(session: Any) -> dict[str, str]:
    """The metadata that was written into the file."""
    return dict(session.get_modelmeta().custom_metadata_map)


def add_metadata(path: Path, properties: dict[str, str]) -> None:
    """Write metadata into an ONNX file that another tool made."""
    onnx = require("onnx", extra="export")
    model = onnx.load(path)
    del model.metadata_props[:]
    for key, value in properties.items():
        entry = model.metadata_props.add()
        entry.key, entry.value = key, value if isinstance(value, str) else json.dumps(value)
    onnx.save(model, path)
