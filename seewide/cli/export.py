"""`seewide export`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.console import bars, say
from seewide.errors import unknown

DETAILS = """
onnx: for ONNX Runtime and others. openvino, openvino_f16: OpenVINO. pt2, aoti: PyTorch
without seewide. executorch, coreml: phones. safetensors: the fused weights. What the run
knows (task, class names, preprocessing) travels in the file.

example:
  seewide export runs/unireplknet_a-digits --format onnx
"""


def arguments(parser: Parser) -> None:
    parser.add("run", "A run folder.", Path, metavar="RUN")
    parser.add("--format", "Kind of file.", str, "onnx", "FORMAT")
    parser.add("--free-size", "Accept images of any size, where the model can.", bool)
    parser.add("--out", "The file to write. Default: RUN/MODEL.FORMAT.", Path)


def run(arguments: Namespace) -> None:
    from seewide.export import FORMATS, export_model
    from seewide.train import load_run

    folder, format = arguments.run, arguments.format
    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    model, task, info = load_run(folder)
    default = (folder if folder.is_dir() else folder.parent) / f"{info.model}.{format}"
    out = arguments.out or default
    example = task.example(info.facts, info.preprocess)
    with bars() as progress:
        progress(f"exporting {info.model}", None)
        report = export_model(model, out, format, example, info.header(), arguments.free_size)
    say(report)
