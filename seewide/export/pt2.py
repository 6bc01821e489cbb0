"""PyTorch's own files, which run without this package.

* `pt2`: `torch.export`, for `torch.export.load(path).module()`.
* `aoti`: an AOTInductor package, compiled for this processor (needs a C++ compiler), for
  `torch._inductor.aoti_load_package(path)`.

The batch size is free, with `free_size` height and width as well. `metadata` lies in the extra
file `metadata.json` of the one and in the package's metadata of the other.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch

from seewide.errors import InputError
from seewide.export.common import (
    Prepared,
    Runner,
    export_program,
    one_sentence,
    outputs,
    quiet,
)

METADATA = "metadata.json"


def write(prepared: Prepared, path: Path) -> Runner:
    """Write a `torch.export` program; returns what runs it."""
    program = export_program(prepared, "pt2")
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            for node in module.graph.nodes:
                node.meta.pop("stack_trace", None)  # it names the folders of this machine
    text = json.dumps(prepared.properties)
    with open(path, "wb") as file:  # given a path, the archive would hold the scratch file's name
        torch.export.save(program, file, extra_files={METADATA: text})
    return load(path)[0]


def load(path: Path) -> tuple[Runner, dict[str, str]]:
    """What runs the file, and its metadata."""
    extra = {METADATA: ""}
    module = torch.export.load(path, extra_files=extra).module()
    text = extra[METADATA]
    return lambda x: outputs(module(x)), json.loads(text) if text else {}


def write_aoti(prepared: Prepared, path: Path) -> Runner:
    """Compile and write an AOTInductor package; returns what runs it.

    Raises:
        InputError: no C++ compiler, or a model that cannot be compiled.
    """
    if not any(shutil.which(name) for name in ("g++", "clang++", "c++")):
        raise InputError("an AOTInductor package needs a C++ compiler, and there is none here")
    program = export_program(prepared, "aoti")
    with one_sentence("aoti", prepared.free_size), quiet():
        torch._inductor.aoti_compile_and_package(
            program,
            package_path=str(path),
            inductor_configs={"aot_inductor.metadata": prepared.properties},
        )
    return load_aoti(path)[0]


def load_aoti(path: Path) -> tuple[Runner, dict[str, str]]:
    """What runs the package, and its metadata."""
    with quiet():
        package = torch._inductor.aoti_load_package(str(path))
    metadata = dict(package.get_metadata())
    metadata.pop("AOTI_DEVICE_KEY", None)  # the compiler's own
    return lambda x: outputs(package(x)), metadata
