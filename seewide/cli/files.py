"""`seewide export` and `seewide convert`: networks as files for others."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seewide.errors import unknown


def export(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    format: Annotated[
        str, typer.Option(metavar="onnx|pt2|safetensors", help="Kind of file.")
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(help="File to write. Default: RUN/MODEL.FORMAT.")
    ] = None,
) -> None:
    """Merge a run's best model, export it, read it back and compare the numbers.

    \b
    seewide export runs/unireplknet_a-digits --format onnx

    onnx: for ONNX Runtime and others. pt2: torch.export, runs without seewide. safetensors: the
    merged weights. Class names, mean, std and picture size travel in the file.
    """
    import torch

    from seewide.export import FORMATS, export_model
    from seewide.train.checkpoint import load_run
    from seewide.train.console import make_console, make_progress

    if format not in FORMATS:
        raise unknown("export format", format, FORMATS)
    model, info = load_run(run)
    default = (run if run.is_dir() else run.parent) / f"{info.model}.{format}"
    shape = (2, 3, info.image_size, info.image_size)
    example = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    console = make_console()
    with make_progress(console) as progress:
        progress.add_task(f"exporting {info.model}", total=None, note="")
        report = export_model(model, out or default, format, example, info.header())
    console.print(str(report), markup=False, soft_wrap=True)


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="A checkpoint.")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="File to write.")],
    to: Annotated[
        str, typer.Option(metavar="seewide|authors", help="Key layout of OUT.")
    ] = "seewide",
    model: Annotated[
        str | None, typer.Option(help="A model of `seewide models`. Default: by keys and shapes.")
    ] = None,
) -> None:
    """Turn an authors' checkpoint into safetensors that know their origin, or back.

    \b
    seewide convert unireplknet_a_in1k_224_acc77.03.pth unireplknet_a.safetensors
    seewide convert unireplknet_a.safetensors unireplknet_a.pth --to authors

    Tensors keep their bits; the way back is tried before a file is written.
    """
    from seewide.checkpoints import convert as rewrite
    from seewide.train.console import make_console

    report = rewrite(source, target, to, model)
    make_console().print(str(report), markup=False, soft_wrap=True)
