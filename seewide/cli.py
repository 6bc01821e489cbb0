"""`seewide`: train, evaluate, predict with, export and list large-kernel networks.

The commands say what they do; the work is done in seewide.train and seewide.export. Heavy modules
are imported inside, so that `--help` answers at once.
"""

from __future__ import annotations

import functools
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from seewide.errors import InputError, unknown, write_atomically

INPUT_ERROR, INTERRUPTED = 2, 130

app = typer.Typer(
    help="Large-kernel vision: from pictures to a trained, merged and exported network.",
    epilog="Begin with: seewide train unireplknet_a --data digits",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)


def command(function: Callable) -> Callable:
    """Register a command whose InputErrors are one line on stderr and exit code 2.

    Without any argument it shows its help, unless it needs none.
    """

    @functools.wraps(function)
    def guarded(*args, **kwargs):
        try:
            return function(*args, **kwargs)
        except InputError as error:
            _complain(str(error))
            raise typer.Exit(INPUT_ERROR) from None

    name = function.__name__.removesuffix("_")
    app.command(name, no_args_is_help=name != "models")(guarded)
    return function


def _complain(sentence: str) -> None:
    from seewide.train.console import make_console

    make_console(stderr=True).print(
        f"seewide: {sentence}", markup=False, style="red", soft_wrap=True
    )


Data = Annotated[
    str | None,
    typer.Option(
        help="`digits` (built in), a folder with train/ and val/, or a folder with one folder per "
        "class, of which a fifth is then held out.",
        metavar="digits|DIR",
    ),
]
Device = Annotated[str | None, typer.Option(help="auto, cpu, cuda, cuda:1 or mps. Default: auto.")]
Workers = Annotated[
    int | None, typer.Option(min=0, help="Processes that read pictures. Default: by the CPUs.")
]
ImageSize = Annotated[int | None, typer.Option(min=8, help="Side of the pictures in pixels.")]


@command
def train(
    context: typer.Context,
    model: Annotated[
        str | None, typer.Argument(help="A model of `seewide models`, or any of timm.")
    ] = None,
    data: Data = None,
    image_size: ImageSize = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="Passes over the pictures.")] = None,
    batch_size: Annotated[int | None, typer.Option(min=1, help="Pictures per update.")] = None,
    lr: Annotated[float | None, typer.Option(help="Highest learning rate.")] = None,
    recipe: Annotated[
        str | None,
        typer.Option(
            help="All other settings, by name. Default: digits, or small_folder for a DIR."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="KEY=VALUE", help="Change one key of the recipe; repeatable."
        ),
    ] = None,
    pretrained: Annotated[
        bool, typer.Option("--pretrained", help="Start from the published weights.")
    ] = False,
    checkpoint: Annotated[
        Path | None, typer.Option(help="Start from the weights of a run or a file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Run folder. Default: runs/MODEL-DATA.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Same seed, same run.")] = 0,
    workers: Workers = None,
    device: Device = None,
    amp: Annotated[str, typer.Option(help="Mixed precision: auto (on CUDA) or off.")] = "auto",
    fast: Annotated[
        bool, typer.Option("--fast", help="A smoke run of seconds on 16 pictures.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")
    ] = None,
) -> None:
    """Train a classifier into a run folder.

    \b
    seewide train unireplknet_a --data digits
    seewide train unireplknet_a --data flowers --image-size 128
    seewide train unireplknet_t --data imagenet --recipe unireplknet_t_in1k
    seewide train --resume runs/unireplknet_a-digits

    \b
    What comes out, in the run folder:
      config.json       every setting
      metrics.jsonl     one line per epoch
      curves.png        loss and accuracy
      best.safetensors  the best weights, with class names and picture size
      last.pt           the state to go on from

    \b
    Ctrl-C or a kill loses at most the current epoch: --resume RUN goes on,
    on the CPU to the same bits. Only --device and --workers may change then.
    """
    from seewide.train import Interrupted, fit
    from seewide.train import resume as go_on
    from seewide.train.console import make_console

    console = make_console()
    try:
        if resume is not None:
            given = _given_besides(context, "resume", "device", "workers")
            if given:
                raise InputError(
                    f"--resume takes all settings from {resume}; leave out {', '.join(given)}"
                )
            go_on(resume, device=device, workers=workers, console=console)
            return
        if model is None:
            raise InputError("which model? `seewide models` lists them, unireplknet_a is the least")
        if data is None:
            raise InputError("--data is `digits` or a folder of pictures")
        chosen, name = _recipe(
            recipe or ("digits" if data == "digits" else "small_folder"),
            {"image_size": image_size, "epochs": epochs, "lr": lr},
            batch_size,
            set_ or [],
        )
        fit(
            model, data, chosen, out, recipe_name=name, seed=seed, workers=workers,
            device=device or "auto", amp=amp, pretrained=pretrained, checkpoint=checkpoint,
            fast=fast, console=console,
        )  # fmt: skip
    except Interrupted as stop:
        console.print(str(stop), markup=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED) from None


def _given_besides(context: typer.Context, *allowed: str) -> list[str]:
    """The parameters on the command line, in its spelling, other than `allowed`."""
    given = []
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name)
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in allowed:
            option = parameter.param_type_name == "option"
            given.append(parameter.opts[0] if option else parameter.name.upper())
    return given


def _recipe(name: str, flags: dict[str, object], batch_size: int | None, settings: list[str]):
    """The named recipe with flags and `--set` applied, and a name that says if it was changed."""
    from seewide.recipes import get, override

    recipe = get(name)
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {setting!r}")
        pairs[key] = value
    changed = recipe if batch_size is None else recipe.with_batch_size(batch_size)
    changed = override(changed, {k: v for k, v in flags.items() if v is not None} | pairs)
    return changed, name if changed == recipe else f"{name}, changed"


@command
def eval_(
    target: Annotated[
        str, typer.Argument(metavar="RUN|MODEL", help="A run folder, or a model with weights.")
    ],
    data: Annotated[
        str | None,
        typer.Option(
            metavar="digits|DIR",
            help="Pictures to judge by. Default: those that the run held out.",
        ),
    ] = None,
    image_size: ImageSize = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures at once.")] = 64,
    out: Annotated[Path | None, typer.Option(help="Where the files go. Default: RUN/eval.")] = None,
    workers: Workers = None,
    device: Device = None,
) -> None:
    """Score a run in training form and in merged form.

    \b
    seewide eval runs/unireplknet_a-digits
    seewide eval unireplknet_t.in1k --data imagenet

    Prints top-1, top-5 and a line per class; draws confusion.png and writes scores.json.
    """
    from seewide.analysis.pictures import draw_confusion
    from seewide.train.console import facts, make_console, make_table
    from seewide.train.evaluate import evaluate

    console = make_console()
    result = evaluate(
        target, data, image_size=image_size, batch_size=batch_size, workers=workers or 0,
        device=device or "auto", console=console,
    )  # fmt: skip
    info, merged = result.info, result.forms[-1]
    facts(
        console,
        model=f"{info.model}, {info.num_classes} classes, {info.image_size} px",
        data=f"{merged.scores.images} pictures: {result.origin}",
    )
    columns = "form", "M parameters", "top-1 %", "top-5 %", "images/s"
    table = make_table("", *columns, left=["form"])
    for form in result.forms:
        table.add_row(
            form.name, f"{form.parameters / 1e6:.2f}", f"{form.scores.top1:.2f}",
            f"{form.scores.top5:.2f}", f"{form.images_per_second:.0f}",
        )  # fmt: skip
    console.print()
    console.print(table)
    console.print(f"largest relative difference of the outputs {result.deviation:.1e}\n")
    console.print(_per_class(result))
    place = Path(target)
    if not place.is_dir():
        place = place.parent if place.is_file() else Path("runs", target)
    folder = out or place / "eval"
    picture = draw_confusion(merged.scores.confusion_KK, info.class_names, folder / "confusion.png")
    scores = {
        "model": info.model,
        "data": result.origin,
        "images": merged.scores.images,
        "deviation": result.deviation,
        "forms": {
            form.name: {name: getattr(form.scores, name) for name in ("top1", "top5", "loss")}
            for form in result.forms
        },
        "class_names": info.class_names,
        "confusion": merged.scores.confusion_KK.tolist(),
    }
    written = write_atomically(
        folder / "scores.json", lambda scratch: scratch.write_text(json.dumps(scores, indent=1))
    )
    console.print(f"written: {picture}, {written}", markup=False, soft_wrap=True)


def _per_class(result):
    """Table: found and right of each class, the merged form; the 30 worst where there are more."""
    from seewide.train.console import make_table

    scores = result.forms[-1].scores
    found, right = scores.recall_K.tolist(), scores.precision_K.tolist()
    counts = scores.confusion_KK.sum(1).tolist()
    classes = [index for index, count in enumerate(counts) if count]
    title = "Per class, merged form"
    if len(classes) > 30:
        classes = sorted(sorted(classes, key=found.__getitem__)[:30])
        title += " (the 30 worst)"
    table = make_table(title, "class", "pictures", "found %", "right when said %", left=["class"])
    for index in classes:
        name = result.info.class_names[index]
        said = "-" if math.isnan(right[index]) else f"{right[index]:.1f}"
        table.add_row(name, f"{counts[index]}", f"{found[index]:.1f}", said)
    return table


@command
def predict(
    run: Annotated[Path, typer.Argument(help="A run folder.")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Picture files.")],
    device: Device = None,
) -> None:
    """Name the five best classes of pictures.

    \b
    seewide predict runs/unireplknet_a-flowers rose.jpg tulip.jpg

    A broken picture is named and the rest go on; the exit code is then 2.
    """
    from seewide.train.console import make_console, make_table
    from seewide.train.predict import predict as predictions

    console = make_console()
    table = make_table("", "picture", *("1st", "2nd", "3rd", "4th", "5th"), left=["picture"])
    broken = []
    for prediction in predictions(run, images, device=device or "auto"):
        if prediction.error is not None:
            broken.append(prediction.error)
            continue
        cells = [f"{name} {100 * share:.1f}%" for name, share in prediction.best]
        table.add_row(str(prediction.picture), *cells, *[""] * (5 - len(cells)))
    if table.row_count:
        console.print(table)
    for sentence in broken:
        _complain(sentence)
    if broken:
        raise typer.Exit(INPUT_ERROR)


@command
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


@command
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
    from seewide.convert import convert as rewrite
    from seewide.train.console import make_console

    report = rewrite(source, target, to, model)
    make_console().print(str(report), markup=False, soft_wrap=True)


@command
def models(
    pattern: Annotated[str, typer.Argument(help="Such as 'unireplknet_*'.")] = "*",
) -> None:
    """List seewide's networks with their sizes and weights.

    \b
    seewide models
    seewide models "*_t"

    All other models of timm train, evaluate and export just as well.
    """
    import timm
    import torch
    from timm.models import get_arch_pretrained_cfgs

    from seewide.models import list_models
    from seewide.reparam import fuse
    from seewide.train.build import count_parameters
    from seewide.train.console import make_console, make_table, track

    names = list_models(pattern)
    if not names:
        raise unknown("model", pattern, list_models())
    console = make_console()
    columns = "model", "M parameters", "merged", "px", "weights"
    table = make_table("", *columns, left=["model", "weights"])
    rows = []
    for name in track(names, "counting", console):
        with torch.device("meta"):
            model = timm.create_model(name)
            merged = fuse(model)
        sizes = [f"{count_parameters(m.parameters()) / 1e6:.1f}" for m in (model, merged)]
        weights = get_arch_pretrained_cfgs(name).items()
        tags = [full.partition(".")[2] for full, config in weights if config.has_weights]
        side = model.pretrained_cfg["input_size"][-1]
        rows.append((name, *sizes, str(side), ", ".join(filter(None, tags)) or "-"))
    for row in sorted(rows, key=lambda row: float(row[1])):
        table.add_row(*row)
    console.print(table)


def main() -> None:
    """The console script."""
    app()


if __name__ == "__main__":
    sys.exit(main())
