"""`seewide train`."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

import typer

from seewide.cli._app import INTERRUPTED, Data, Device, ImageSize, Workers
from seewide.errors import InputError, unknown

HOW = "How it is carried out"


def train(
    context: typer.Context,
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL|RECIPE]",
            help="A model of `seewide models` or any of timm, or a recipe that names its own.",
        ),
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
    fast: Annotated[
        bool, typer.Option("--fast", help="A smoke run of seconds on 16 pictures.")
    ] = False,
    resume: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Go on with a run that was stopped.")
    ] = None,
    workers: Workers = None,
    device: Device = None,
    amp: Annotated[
        str,
        typer.Option(
            metavar="auto|bf16|fp16|off",
            help="Mixed precision. auto: on CUDA.",
            rich_help_panel=HOW,
        ),
    ] = "auto",
    compile: Annotated[
        bool, typer.Option("--compile", help="With torch.compile.", rich_help_panel=HOW)
    ] = False,
    shard: Annotated[
        bool,
        typer.Option(
            "--shard", help="Weights over the processes (FSDP2), not whole.", rich_help_panel=HOW
        ),
    ] = False,
    channels_last: Annotated[
        bool, typer.Option("--channels-last", help="Maps pixel by pixel.", rich_help_panel=HOW)
    ] = False,
    grad_checkpointing: Annotated[
        bool,
        typer.Option(
            "--grad-checkpointing",
            help="Activations again in backward: less memory, more time.",
            rich_help_panel=HOW,
        ),
    ] = False,
    save_every: Annotated[
        int,
        typer.Option(
            min=0, help="Also within an epoch, every N updates. 0: no.", rich_help_panel=HOW
        ),
    ] = 0,
    keep_every: Annotated[
        int,
        typer.Option(
            min=0,
            help="Weights of every N epochs, besides best and last. 0: no.",
            rich_help_panel=HOW,
        ),
    ] = 0,
    nan: Annotated[
        str,
        typer.Option(
            metavar="stop|skip", help="At an update that is no number.", rich_help_panel=HOW
        ),
    ] = "stop",
    broken: Annotated[
        float | None,
        typer.Option(
            metavar="SHARE",
            help="Of the pictures that may be unreadable: skipped, and named in broken.txt. "
            "Default: 0.01.",
            rich_help_panel=HOW,
        ),
    ] = None,
    tensorboard: Annotated[
        bool, typer.Option("--tensorboard", help="Also for TensorBoard.", rich_help_panel=HOW)
    ] = False,
) -> None:
    """Train a classifier into a run folder.

    \b
    seewide train unireplknet_a --data digits
    seewide train unireplknet_a --data flowers --image-size 128
    seewide train unireplknet_t_in1k --data imagenet
    seewide train --resume runs/unireplknet_a-digits
    torchrun --nproc-per-node 8 -m seewide train unireplknet_t_in1k \\
      --data imagenet --out runs/t

    \b
    What comes out, in the run folder:
      config.json       every setting
      metrics.jsonl     one line per epoch, updates.jsonl one every few updates
      curves.png        loss and accuracy
      best.safetensors  the best weights, with class names and picture size
      last.pt           the state to go on from
      broken.txt        pictures that could not be read, if there are some

    \b
    A kill loses at most the current epoch, or --save-every updates; SIGTERM loses
    nothing. --resume RUN goes on, and so does the same command with its --out: on
    the CPU to the same bits, on another number of processes up to rounding. Only
    --device, --workers, --nan and --broken may be said with --resume.
    """
    from seewide.train import Interrupted, Terminated, fit
    from seewide.train import resume as go_on
    from seewide.train.console import make_console
    from seewide.train.data import SHARE
    from seewide.train.engine import launched_rank

    console, rank = make_console(), launched_rank()
    try:
        if resume is not None:
            given = _given_besides(context, "resume", "device", "workers", "nan", "broken")
            if given:
                raise InputError(
                    f"--resume takes all settings from {resume}; leave out {', '.join(given)}"
                )
            told = nan if _given_besides(context, "resume", "device", "workers", "broken") else None
            go_on(resume, device=device, workers=workers, nan=told, broken=broken, console=console)
            return
        model, recipe = _model_and_recipe(model, recipe)
        if data is None:
            raise InputError("--data is `digits` or a folder, of pictures, tar shards or tables")
        chosen, name = _recipe(
            recipe or ("digits" if data == "digits" else "small_folder"),
            {"image_size": image_size, "epochs": epochs, "lr": lr},
            batch_size,
            set_ or [],
        )
        fit(
            model, data, chosen, out, recipe_name=name, seed=seed, workers=workers,
            device=device or "auto", amp=amp, compile=compile, shard=shard,
            channels_last=channels_last, grad_checkpointing=grad_checkpointing,
            save_every=save_every, keep_every=keep_every, nan=nan, tensorboard=tensorboard,
            broken=SHARE if broken is None else broken, pretrained=pretrained,
            checkpoint=checkpoint, fast=fast, console=console,
        )  # fmt: skip
    except (Interrupted, Terminated) as stop:
        if rank == 0:
            console.print(str(stop), markup=False, soft_wrap=True)
        raise typer.Exit(INTERRUPTED if isinstance(stop, Interrupted) else 0) from None
    except InputError as error:
        if rank:
            raise InputError(f"process {rank}: {error}") from None
        raise


def _model_and_recipe(name: str | None, recipe: str | None) -> tuple[str | None, str | None]:
    """What the first word names: a model, or a recipe with a model of its own."""
    from seewide.recipes import RECIPES, get

    if name in RECIPES:
        if recipe is not None:
            raise InputError(f"{name} is a recipe, and --recipe names {recipe}; give one")
        if not get(name).model:
            raise InputError(f"recipe {name} names no model: seewide train MODEL --recipe {name}")
        return None, name
    if name is not None and recipe is None and _nearer_a_recipe(name):
        raise unknown("model or recipe", name, RECIPES)
    if name is None and (recipe is None or not get(recipe).model):
        raise InputError("which model? `seewide models` lists them, unireplknet_a is the least")
    return name, recipe


def _nearer_a_recipe(name: str) -> bool:
    """Whether a name that no model has looks like a recipe's (`pelk_t_in1kk`)."""
    import timm

    from seewide.recipes import RECIPES

    if timm.is_model(name.partition(".")[0]):
        return False
    nearest = get_close_matches(name, [*RECIPES, *timm.list_models()], n=1, cutoff=0.8)
    return bool(nearest) and nearest[0] in RECIPES


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
