"""`seewide export`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import replace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.console import bars, print_table, say
from seewide.errors import InputError, unknown

DETAILS = """
onnx: for ONNX Runtime and others. openvino, openvino_f16: OpenVINO. pt2, aoti: PyTorch
without seewide. executorch, coreml: phones. safetensors: the fused weights. onnx_int8,
openvino_int8: 8 bits, calibrated on the run's training images and compared on its
held-out ones. What the run knows (task, class names, preprocessing) travels in the file.

examples:
  seewide export runs/unireplknet_a-digits --format onnx --for onnxruntime
  seewide export runs/unireplknet_a-digits --format onnx_int8
  seewide export runs/unireplknet_a-digits --bundle digits-classifier
"""


def arguments(parser: Parser) -> None:
    parser.add("run", "A run folder.", Path, metavar="RUN")
    parser.add("--format", "Kind of file.", str, "onnx", "FORMAT")
    parser.add("--free-size", "Accept images of any size, where the model can.", bool)
    runtimes = "onnxruntime|openvino|web|auto"
    parser.add("--for", "Rewrite large kernels as is fastest there.", str, None, runtimes,
               dest="runtime")  # fmt: skip
    parser.add("--out", "The file to write. Default: RUN/MODEL.FORMAT.", Path)
    parser.add("--bundle", "Write a folder for deployment instead: models, server, page.", Path,
               metavar="DIR")  # fmt: skip


def run(arguments: Namespace) -> None:
    from seewide.export import FIXED_SIZE, FORMATS, INT8_FORMATS, export_model
    from seewide.export.common import Axes
    from seewide.train import load_run
    from seewide.train.exported import export_run_int8

    folder, format = arguments.run, arguments.format
    if format not in (*FORMATS, *INT8_FORMATS):
        raise unknown("export format", format, (*FORMATS, *INT8_FORMATS))
    is_int8 = format in INT8_FORMATS
    if is_int8 and (arguments.free_size or arguments.runtime):
        raise InputError(f"{format} takes neither --free-size nor --for")
    model, task, info = load_run(folder)
    if task.not_exported and format != "safetensors":
        raise InputError(f"{folder} cannot be exported as {format}: {task.not_exported}")
    if arguments.bundle is not None:
        write_bundle(model, task, info, arguments)
        return
    out = arguments.out or default_path(folder, info.model, format)
    graph, settings = task.graph(model)
    axes = Axes(**{"size": bool(arguments.free_size), **settings})
    if format in FIXED_SIZE:
        axes = replace(axes, size=False)
    example = task.example(info.facts, info.preprocess, 1 + axes.batch)
    with bars() as progress:
        progress(f"exporting {info.model}", None)
        if is_int8:
            report = export_run_int8(model, task, info, out, format)
        else:
            report = export_model(
                graph, out, format, example, info.header(), for_runtime=arguments.runtime, axes=axes
            )
    say(report)


def default_path(run: Path, model: str, format: str) -> Path:
    """`RUN/unireplknet_a.onnx`, `RUN/unireplknet_a.int8.onnx`"""
    from seewide.export import SUFFIX
    from seewide.export.quantized import INT8_SUFFIX

    folder = run if run.is_dir() else run.parent
    kind = "aoti" if format == "aoti" else format.partition("_")[2]  # pt2 has the same ending
    suffix = {**SUFFIX, **INT8_SUFFIX}[format]
    return folder / f"{model}{'.' if kind else ''}{kind}{suffix}"


def write_bundle(model, task, info, arguments: Namespace) -> None:
    """`--bundle DIR`, with the int8 file where the run's data is still there."""
    from seewide.export.bundle import bundle
    from seewide.tasks.classification import Classification
    from seewide.train.exported import images_of_run

    if not isinstance(task, Classification):
        raise InputError(f"a bundle is of a classifier, {arguments.run} is of the task {info.task}")
    try:
        calibration, images, classes = images_of_run(task, info)
    except InputError as error:
        say(f"without an int8 file: {error}")
        calibration = images = classes = None
    with bars() as progress:
        progress(f"writing {arguments.bundle}", None)
        rows = bundle(
            model, arguments.bundle, info.model, info.facts["class_names"], info.preprocess,
            info.header(), calibration, images, classes, arguments.runtime or "onnxruntime",
        )  # fmt: skip
    lines = [(r.file, f"{r.megabytes:.1f}", r.result, f"{r.milliseconds:.2f}") for r in rows]
    print_table("", ("file", "MB", "compared with the trained model", "CPU ms"), lines)
    say(f"written: {arguments.bundle}")
