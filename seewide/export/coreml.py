"""Core ML, for Apple's devices: `.mlpackage`. It is converted anywhere and runs on macOS alone.

Sizes are fixed to the example's. `metadata` lies in the user-defined metadata.
"""

from __future__ import annotations

import sys
from pathlib import Path

import torch
from torch import Tensor

from seewide.errors import InputError, require
from seewide.export.common import Outputs, Prepared, Runner, one_sentence, outputs, quiet


def write(prepared: Prepared, path: Path) -> Runner | None:
    """Write the package (a folder); returns what runs it, None where it does not run.

    Raises:
        InputError: coremltools is not installed, or an operator is not supported.
    """
    coremltools = require("coremltools", extra="coreml")
    with one_sentence("coreml"), quiet(), torch.no_grad():
        program = torch.export.export(prepared.model, (prepared.inputs[0],)).run_decompositions({})
        model = coremltools.convert(program, convert_to="mlprogram")
        model.user_defined_metadata.update(prepared.properties)
        model.save(str(path))
    return load(path)[0] if sys.platform == "darwin" else None


def load(path: Path) -> tuple[Runner, dict[str, str]]:
    """What runs the package, and its metadata.

    Raises:
        InputError: not on macOS.
    """
    if sys.platform != "darwin":
        raise InputError(f"{path} is a Core ML package, which runs on macOS alone")
    coremltools = require("coremltools", extra="coreml")
    model = coremltools.models.MLModel(str(path))
    name = model.get_spec().description.input[0].name

    def run(x: Tensor) -> Outputs:
        return outputs(list(model.predict({name: x.numpy()}).values()))

    return run, dict(model.user_defined_metadata)
