"""`seewide train`."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from seewide.cli._parser import Parser, given, pairs
from seewide.console import say
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
  samples.png       the first samples with their labels, for boxes and masks
  best.safetensors  the best weights, with all that evaluation and export need
  last.pt           the state to resume from
  broken.txt        the samples that could not be read, if there are any

A killed run loses the epoch in progress at most, or the steps since --save-every; SIGTERM
and SIGHUP lose nothing. --resume RUN continues a run, and so does its command with the same
--out: on a CPU with the same result to the bit, with another number of processes up to
rounding. Exit codes: 0 finished, 2 wrong input, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""
ARGUMENTS = (
    ("model", "A model of timm, or a recipe that names its own.", str, "MODEL|RECIPE"),
    (
        "--data",
        "`digits` (built in), or what the task reads. Classification: a folder with train/ and "
        "val/ or with one folder per class, of which a fifth is held out; tar shards; tables.",
        str,
        "DATA",
    ),
    ("--task", "What to learn. Default: the recipe's, or what fits the data.", str, "TASK"),
    ("--recipe", "All other settings. Default: the task's own choice.", str, "NAME"),
    ("--set", "Change a setting of the recipe or task; may be repeated.", str, "KEY=VALUE"),
    ("--out", "Run folder. Default: runs/MODEL-DATA.", Path, "DIR"),
    ("--resume", "Continue a stopped run.", Path, "RUN"),
    ("--smoke", "The recipe's smoke test: a few seconds on 16 samples.", bool, ""),
)


def arguments(parser: Parser) -> None:
    from seewide.tasks import get_task, task_names
    from seewide.train import Runtime

    for name, help, kind, metavar in ARGUMENTS:  # only those given become attributes
        more = {"action": "append"} if name == "--set" else {}
        more |= {"nargs": "?"} if name == "model" else {}
        parser.add(name, help, kind, SUPPRESS, metavar, **more)
    parser.add_options("recipe", Recipe)
    for name in task_names():
        parser.add_options(name, get_task(name).Options)
    parser.add_options("how the run is carried out", Runtime, show_defaults=True)


def run(arguments: Namespace) -> int:
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
        words = ", ".join("MODEL" if name == "model" else _flag(name) for name in others)
        raise InputError(f"--resume takes all settings from {arguments.resume}; leave out {words}")
    resume(arguments.resume, **given(arguments, Runtime))


def _fit(arguments: Namespace) -> None:
    from seewide.tasks import get_task
    from seewide.train import Runtime, fit
    from seewide.train.run import default_recipe

    values = vars(arguments)
    model, name = _model_and_recipe(values.get("model"), values.get("recipe"))
    if "data" not in values:
        raise InputError("--data is required: `digits`, or what the task reads, such as a folder")
    task = values.get("task") or (get(name).task if name else _guess(values["data"]))
    if name is None:
        name, recipe = default_recipe(task, values["data"], model)
    else:
        recipe = get(name)
    runtime = given(arguments, Runtime)
    smoke = "smoke" in values
    starts = {"pretrained", "checkpoint"} & runtime.keys()
    if recipe.start_from != "random" and not starts and not smoke:
        weights = "--pretrained" if recipe.start_from == "pretrained" else "--checkpoint WEIGHTS"
        raise InputError(f"the recipe {name} fine-tunes trained weights: add {weights}")
    options = get_task(task).Options
    flags = given(arguments, Recipe) | given(arguments, options)
    _check_flags(values, flags, runtime)
    changed = override(recipe, flags | pairs(values.get("set", ())), options)
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
    own = {name.removeprefix("--") for name, *_ in ARGUMENTS}
    for name in values.keys() - own.union(*known):
        raise InputError(f"{_flag(name)} is not an option of this task")


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _guess(data: str) -> str:
    """The task that data is for; where none recognizes it, the one whose refusal says most."""
    from seewide.tasks import get_task, guess_task, task_names
    from seewide.train.processes import launched_rank

    if any(get_task(name).recognize(data) for name in task_names()):
        name, words = guess_task(data)
        if not launched_rank():
            say(f"{data}: {words}, so the task is {name}")
        return name
    return "classification"


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
