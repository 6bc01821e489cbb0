"""ExecuTorch, for phones and microcontrollers: `.pte`, with XNNPACK's kernels.

Sizes are fixed to the example's, with a batch of one. `metadata` is the text that the
program's method `seewide_metadata` returns.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from torch import Tensor

from seewide.errors import InputError, require
from seewide.export.common import (
    Outputs,
    Prepared,
    Runner,
    first_line,
    one_sentence,
    outputs,
    quiet,
)

METHOD = "seewide_metadata"


def write(prepared: Prepared, path: Path) -> Runner:
    """Write the program; returns what runs it, one image at a time.

    Raises:
        InputError: ExecuTorch is not installed, or an operator is not supported.
    """
    for module in ("executorch.exir", "torchao"):
        require(module, extra="executorch")
    with one_sentence("executorch"), quiet(), torch.no_grad():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        program = torch.export.export(prepared.model, (prepared.inputs[0][:1],))
        lowered = to_edge_transform_and_lower(
            program,
            partitioner=[XnnpackPartitioner()],
            constant_methods={METHOD: json.dumps(prepared.properties)},
        ).to_executorch()
    path.write_bytes(lowered.buffer)
    return load(path)[0]


def load(path: Path) -> tuple[Runner, dict[str, str]]:
    """What runs the file, one image at a time, and its metadata."""
    require("executorch.runtime", extra="executorch")
    from executorch.runtime import Runtime

    try:
        program = Runtime.get().load_program(path)
        method = program.load_method("forward")
        names = program.method_names
        metadata = {}
        if METHOD in names:
            metadata = json.loads(program.load_method(METHOD).execute([])[0])
    except RuntimeError as error:
        raise InputError(
            f"{path} is no ExecuTorch file that runs here: {first_line(error)}"
        ) from None

    def run(x: Tensor) -> Outputs:
        single = [outputs(method.execute([image[None].contiguous()])) for image in x]
        return tuple(torch.cat(parts) for parts in zip(*single, strict=True))

    return run, metadata
