"""`seewide export`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._output import console, say
from seewide.cli._parser import Parser
from seewide.errors import unknown

DETAILS = """
onnx: for ONNX Runtime and others. pt2: torch.export, runs without seewide. safetensors: the
fused weights. What the run knows (task, class names, preprocessing) travels in the file.

example:
  seewide export runs/unireplknet_a-digits --format onnx
"""


def arguments(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add("run", metavar="RUN", type=Path, help="A run folder.")
    parser.add(
        "--format", metavar="onnx|pt2|safetensors", default="onnx", help="Kind of file. Default: onnx."
    )
    parser.add("--out", metavar="FILE", type=Path, help="Default: RUN/MODEL.FORMAT.")


def run(arguments: Namespace) -> None:
    """Export and print the comparison."""
    from seewide.console import make_progress
    from seewide.export import FORMATS, export_model
    from seewide.train import load_run

    folder, format = arguments.run, arguments.format
    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    model, task, info = load_run(folder)
    default = (folder if folder.is_dir() else folder.parent) / f"{info.model}.{format}"
    example = task.example(info.facts, info.preprocess)
    with make_progress(console()) as progress:
        progress.add_task(f"exporting {info.model}", total=None, note="")
        report = export_model(model, arguments.out or default, format, example, info.header())
    say(report)
