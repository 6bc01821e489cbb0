"""`seewide train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from seewide.cli._app import INTERRUPTED, Data, Device, ImageSize, Workers
from seewide.errors import InputError


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
