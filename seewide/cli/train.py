"""`seewide train`."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from seewide.cli._output import say
from seewide.cli._parser import Parser, add_flags, given
from seewide.errors import InputError, unknown
from seewide.recipes import RECIPES, Recipe, get, override

DETAILS = """
examples:
  seewide train unireplknet_a --data digits
  seewide train unireplknet_a --data flowers --image-size 128
  seewide train unireplknet_t_in1k --data imagenet
  seewide train --resume runs/unireplknet_a-digits
  torchrun --nproc-per-node 8 -m seewide train unireplknet_t_in1k \\
    --data imagenet --out runs/t

in the run folder:
  config.json       all settings
  metrics.jsonl     one line per epoch; steps.jsonl has one every few optimizer steps
  curves.png        loss and score
  best.safetensors  the best weights, with all that evaluation and export need
  last.pt           the state to resume from
  broken.txt        the samples that could not be read, if there are any

A killed run loses the epoch in progress at most, or the steps since --save-every; SIGTERM
and SIGHUP lose nothing. --resume RUN continues a run, and so does its command with the same
--out: on a CPU with the same result to the bit, with another number of processes up to
rounding. Exit codes: 0 finished, 2 wrong input, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""


def arguments(parser: Parser) -> None:
    """Declare the arguments: those of the command, and a flag for each option that wants one."""
    from seewide.tasks import get_task, task_names
    from seewide.train import Runtime

    absent: dict[str, Any] = {"default": SUPPRESS}  # only what was given becomes an attribute
    parser.add(
        "model",
        nargs="?",
        **absent,
        help="A model of `seewide models` or any of timm, or a recipe that names its own.",
    )
    parser.add(
        "--data",
        metavar="DATA",
        **absent,
        help="`digits` (built in), or a folder: train/ and val/, or one folder per class, of which "
        "a fifth is held out; also tar shards and tables.",
    )
    parser.add("--task", metavar="TASK", **absent, help="What to learn; see `seewide tasks`.")
    parser.add(
        "--recipe",
        metavar="NAME",
        **absent,
        help="All other settings; see `seewide recipes`. Default: the task's own choice.",
    )
    parser.add(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        **absent,
        help="Change one setting of the recipe or one option of the task; may be repeated.",
    )
    parser.add(
        "--out", metavar="DIR", type=Path, **absent, help="Run folder. Default: runs/MODEL-DATA."
    )
    parser.add("--resume", metavar="RUN", type=Path, **absent, help="Continue a stopped run.")
    parser.add(
        "--smoke",
        action="store_true",
        **absent,
        help="Run the recipe's smoke test: a few seconds on 16 samples.",
    )
    add_flags(parser, "recipe", Recipe)
    for name in task_names():
        add_flags(parser, name, get_task(name).Options)
    add_flags(parser, "how the run is carried out", Runtime, show_defaults=True)


def run(arguments: Namespace) -> int:
    """Train or resume, and return the exit code."""
    from seewide.train import Interrupted, Terminated
    from seewide.train.processes import launched_rank

    try:
        if "resume" in arguments:
            _resume(arguments)
        else:
            _fit(arguments)
    except InputError as error:
        if rank := launched_rank():
            raise InputError(f"process {rank}: {error}") from None
        raise
    except (Interrupted, Terminated) as stop:
        if launched_rank() == 0:
            say(stop)
        return 130 if isinstance(stop, Interrupted) else 128 + stop.signal
    return 0


def _resume(arguments: Namespace) -> None:
    from seewide.train import Runtime, resume

    may_change = {field.name for field in fields(Runtime) if field.metadata["may_change"]}
    others = [name for name in vars(arguments) if name not in {"resume", *may_change}]
    if others:
        words = ("MODEL" if n == "model" else f"--{n.replace('_', '-')}" for n in others)
        words = ", ".join("--set" if word == "--settings" else word for word in words)
        raise InputError(f"--resume takes all settings from {arguments.resume}; leave out {words}")
    resume(arguments.resume, **given(arguments, Runtime))


def _fit(arguments: Namespace) -> None:
    from seewide.tasks import get_task
    from seewide.train import Runtime, fit

    values = vars(arguments)
    model, name = _model_and_recipe(values.get("model"), values.get("recipe"))
    if "data" not in values:
        raise InputError("--data is required: `digits`, or what the task reads, such as a folder")
    task = values.get("task") or (get(name).task if name else _guess(values["data"]))
    name = name or get_task(task).default_recipe_for(values["data"])
    recipe = get(name)
    runtime = given(arguments, Runtime)
    smoke = "smoke" in values
    starts = {"pretrained", "checkpoint"} & runtime.keys()
    if recipe.start_from != "random" and not starts and not smoke:
        weights = "--pretrained" if recipe.start_from == "pretrained" else "--checkpoint WEIGHTS"
        raise InputError(f"the recipe {name} fine-tunes trained weights: add {weights}")
    options = get_task(task).Options
    flags = given(arguments, Recipe)
    for other in fields(options):
        if other.name in values and other.metadata["flag"]:
            flags[other.name] = values[other.name]
    _check_flags(values, flags, runtime)
    changed = override(recipe, flags | _pairs(values.get("settings", ())), options)
    fit(
        model,
        values["data"],
        changed,
        values.get("out"),
        task=task,
        recipe_name=name if changed == recipe else f"{name}, changed",
        smoke=smoke,
        **runtime,
    )


def _check_flags(values: dict[str, Any], *known: dict[str, Any]) -> None:
    """Refuse flags of another task's options."""
    own = {"model", "data", "recipe", "settings", "out", "resume", "smoke"}
    for name in values.keys() - own.union(*known) - {"task"}:
        raise InputError(f"--{name.replace('_', '-')} is not an option of this task")


def _guess(data: str) -> str:
    """The task that data is for; where none recognizes it, the one whose refusal says most."""
    from seewide.tasks import get_task, guess_task, task_names

    if any(get_task(name).recognize(data) for name in task_names()):
        return guess_task(data)[0]
    return "classification"


def _pairs(settings: list[str]) -> dict[str, str]:
    """`--set KEY=VALUE` as a dict."""
    pairs = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {setting!r}")
        pairs[key] = value
    return pairs


def _model_and_recipe(name: str | None, recipe: str | None) -> tuple[str | None, str | None]:
    """What the first argument names: a model, or a recipe with its own model."""
    if name in RECIPES:
        if recipe is not None:
            raise InputError(f"{name} is a recipe, and --recipe names {recipe}; give one")
        if not get(name).model:
            raise InputError(f"recipe {name} names no model: seewide train MODEL --recipe {name}")
        return None, name
    if name is not None and recipe is None and _resembles_recipe(name):
        raise unknown("model or recipe", name, RECIPES)
    if name is None and (recipe is None or not get(recipe).model):
        raise InputError(
            "which model? `seewide models` lists them, unireplknet_a is the smallest of its family"
        )
    return name, recipe


def _resembles_recipe(name: str) -> bool:
    """Whether a name that no model has resembles a recipe's most (`pelk_t_in1kk`)."""
    import timm

    if timm.is_model(name.partition(".")[0]):
        return False
    nearest = get_close_matches(name, [*RECIPES, *timm.list_models()], n=1, cutoff=0.8)
    return bool(nearest) and nearest[0] in RECIPES
