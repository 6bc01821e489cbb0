"""`fit`: train a model into a new run folder; `resume`: continue where one stopped."""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import fields, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

import torch
from rich.console import Console
from torch import nn

from seewide._version import __version__
from seewide.console import make_console
from seewide.data.samples import fingerprint
from seewide.errors import InputError, unknown
from seewide.models import load_checkpoint
from seewide.options import difference
from seewide.options import replace as replace_options
from seewide.recipes import Recipe, get
from seewide.seeding import seed_all
from seewide.tasks import DataSplits, Task, TrainingContext, find_backbone, get_task
from seewide.train.build import (
    build_backbone,
    check_input,
    classifiers_of,
    has_layer_scale,
    init_by_fan_in,
)
from seewide.train.checkpoint import CONFIG, RunConfig, WeightsInfo, load_state, weights_of
from seewide.train.evaluate import load_for_task, make_task
from seewide.train.loop import Run, RunResult
from seewide.train.processes import BatchShape, Processes
from seewide.train.runtime import Runtime
from seewide.train.writer import FolderLock


def fit(
    model: str | None,
    data: str | Path = "digits",
    recipe: str | Recipe | None = None,
    out: str | Path | None = None,
    *,
    task: str | None = None,
    recipe_name: str | None = None,
    smoke: bool = False,
    console: Console | None = None,
    **runtime: Any,
) -> RunResult:
    """Train `model` on `data` into the folder `out`; with the `out` of a run, resume it.

    Under `torchrun` or `accelerate launch` every process calls it, and the first one writes.

    Args:
        model: a name that `timm.create_model` knows; None: the recipe's.
        data: what the task opens, such as `digits` or a folder.
        recipe: by name or as data; default: the task's own choice for the data.
        out: a new folder, or that of a run with the same settings; default: a new one,
            `runs/<model>-<data>`, with a number if that exists.
        task: what to learn, if no recipe says it; default: classification.
        recipe_name: what to call a recipe given as data.
        smoke: the recipe's smoke test, a run of seconds.
        console: where the lines go; `rich.console.Console(quiet=True)` for nowhere.
        runtime: fields of `seewide.train.Runtime`: `workers=2`, `amp="bf16"`, `seed=1` ...

    Raises:
        InputError: whatever cannot work, in one sentence; before any training wherever possible.
        Interrupted: Ctrl-C.
        Terminated: SIGTERM or SIGHUP; everything is saved.
    """
    options = _runtime(Runtime(), runtime)
    data = str(data)
    if recipe is None:
        recipe_name, recipe = default_recipe(task or "classification", data, model)
    if isinstance(recipe, str):
        recipe_name, recipe = recipe, get(recipe)
    if task not in (None, recipe.task):
        raise InputError(f"the recipe {recipe_name or ''} is for {recipe.task}, not for {task}")
    if smoke:
        recipe = recipe.smoke()
    name = model or recipe.model
    if not name:
        raise InputError(f"recipe {recipe_name or 'custom'} names no model; give one beside it")
    if options.pretrained and options.checkpoint:
        raise InputError("--pretrained and --checkpoint both say where to start from; give one")
    learned = make_task(recipe)
    splits = learned.open(data)
    processes = Processes(options.device, options.amp, compile=options.compile, shard=options.shard)
    console = _console(console, processes)
    seed_all(options.seed)
    network = _initial_model(name, learned, splits.facts, recipe, options)
    preprocess = learned.preprocess(find_backbone(network))
    check_input(network, name, learned.example(splits.facts, preprocess, 1))
    if options.checkpoint:
        options = replace(options, checkpoint=str(Path(options.checkpoint).resolve()))
    config = RunConfig(
        model=name,
        data=splits.name,
        recipe_name=recipe_name or "custom",
        recipe=recipe,
        runtime=options,
        facts=splits.facts,
        preprocess=preprocess,
        samples={"train": len(splits.train), "val": len(splits.val)},
        fingerprint=_fingerprint(splits),
        versions={"seewide": __version__, **{name: version(name) for name in ("torch", "timm")}},
    )
    # The main process decides for all: the others may find what it has just written.
    folder, exists = processes.broadcast_from_main(_folder(out, f"{name}-{splits.short}"))
    if exists:
        _check_same_run(folder, config)
    run = _prepare(config, folder, splits, learned, network, processes, console)
    with _lock(folder, processes):
        if exists:
            _restore(run, *load_state(folder))
        else:
            run.feed.check()
            if processes.is_main_process:
                config.save(folder)
        with processes.raise_on_all_ranks():
            return run.train()


def default_recipe(task: str, data: str, model: str | None) -> tuple[str, Recipe]:
    """The task's choice for the data: its name and settings.

    Without layer scale if the network has none, since nobody asked for it.
    """
    name = get_task(task).default_recipe_for(data)
    recipe = get(name)
    if recipe.layer_scale and model and not has_layer_scale(model):
        recipe = replace(recipe, layer_scale=0.0)
    return name, recipe


def resume(run: str | Path, *, console: Console | None = None, **runtime: Any) -> RunResult:
    """Continue a run from its last checkpoint to the end that its recipe says.

    The options of `Runtime` that may change, such as `device`, `workers` and `nan`, may differ from
    before, and so may the number of processes; all other settings are those of the run. On a CPU
    the result is that of an uninterrupted run, to the bit, for any number of workers, and up to
    rounding for any number of processes.

    Raises:
        InputError: no run, damaged checkpoints, or data that has changed since.
    """
    folder = Path(run)
    config = RunConfig.load(folder)
    options = _runtime(config.runtime, runtime, resuming=True)
    config = replace(config, runtime=options)
    processes = Processes(options.device, options.amp, compile=options.compile, shard=options.shard)
    console = _console(console, processes)
    task = config.task
    splits = task.open(config.data)
    now = {"train": len(splits.train), "val": len(splits.val)}
    if splits.facts != config.facts or now != config.samples:
        raise InputError(
            f"{splits.name} has changed since the run began: {_summary(splits.facts, now)} now, "
            f"{_summary(config.facts, config.samples)} then"
        )
    if _fingerprint(splits) != config.fingerprint:
        raise InputError(
            f"{splits.name} has changed since the run began: files were renamed, exchanged or "
            "labelled anew"
        )
    seed_all(options.seed)
    with _lock(folder, processes):
        state, warning = load_state(folder)
        if state is not None:  # which replaces all weights
            options = replace(options, pretrained=False, checkpoint="")
        network = _initial_model(config.model, task, splits.facts, config.recipe, options)
        continued = _prepare(config, folder, splits, task, network, processes, console)
        _restore(continued, state, warning)
        with processes.raise_on_all_ranks():
            return continued.train()


def _prepare(
    config: RunConfig,
    folder: Path,
    splits: DataSplits,
    task: Task,
    network: nn.Module,
    processes: Processes,
    console: Console,
) -> Run:
    batch = BatchShape.of(config.recipe, processes.ranks, task.accumulates).device_batch
    context = TrainingContext(
        config.facts, config.preprocess, processes.device, batch, load_for_task
    )
    task.prepare(network, context)
    return Run(config, folder, splits, task, network, processes, console)


def _restore(run: Run, state: dict[str, Any] | None, warning: str) -> None:
    """Load the state of the run's folder, if it has one."""
    if warning:
        run.console.print(warning, markup=False, soft_wrap=True)
    if state is not None:
        run.load_state(state)


def _lock(folder: Path, processes: Processes) -> Any:
    """The folder's lock, held by the main process; its refusal ends all processes."""
    lock: Any = contextlib.nullcontext()
    problem = None
    if processes.is_main_process:
        try:
            lock = FolderLock(folder)
        except InputError as error:
            problem = str(error)
        except OSError as error:
            problem = f"could not write to {folder}: {error.strerror or error}"
    if problem := processes.broadcast_from_main(problem):
        raise InputError(problem)
    return lock


def _runtime(base: Runtime, changes: dict[str, Any], *, resuming: bool = False) -> Runtime:
    """`base` with other values, which None leaves as they are."""
    given = {name: value for name, value in changes.items() if value is not None}
    known = {field.name: field for field in fields(Runtime)}
    for name in given:
        if name not in known:
            raise unknown("runtime option", name, known)
        if resuming and not known[name].metadata["may_change"]:
            raise InputError(f"{name} cannot change when a run is resumed")
    return replace_options(base, given)


def _console(console: Console | None, processes: Processes) -> Console:
    """The main process prints for all."""
    if not processes.is_main_process:
        return Console(quiet=True)
    return console or make_console()


def _initial_model(
    name: str, task: Task, facts: dict[str, Any], recipe: Recipe, runtime: Runtime
) -> nn.Module:
    """The model of the first epoch: new, pretrained, or with the weights of a checkpoint."""
    shape = {
        "image_size": recipe.options.get("image_size"),
        "drop_path": recipe.drop_path,
        **recipe.architecture,
    }
    options = task.backbone_options(facts)
    if runtime.checkpoint:
        backbone = _from_checkpoint(name, options, runtime.checkpoint, shape)
    else:
        backbone = build_backbone(
            name, options, layer_scale=recipe.layer_scale, pretrained=runtime.pretrained, **shape
        )
        if recipe.fan_in_init and not runtime.pretrained:
            init_by_fan_in(backbone)
    if recipe.head_init_scale != 1:
        with torch.no_grad():
            for classifier in classifiers_of(backbone):
                for parameter in classifier.parameters():
                    parameter.mul_(recipe.head_init_scale)
    return task.build(backbone, facts)


def _from_checkpoint(
    name: str, options: dict[str, Any], checkpoint: str, shape: dict[str, Any]
) -> nn.Module:
    """A backbone with the weights of a run or a file; its classifier is new."""
    path = weights_of(checkpoint)
    info = WeightsInfo.of(path) if path.suffix == ".safetensors" else None
    # The weights bring their own classifier, which is replaced once they are loaded. Weights that
    # do not say their classes have those of the model's tag: 21841 for unireplknet_s.in22k.
    loaded = info.make_task().backbone_options(info.facts) if info else {}
    backbone = build_backbone(name, loaded, **shape)
    load_checkpoint(backbone, path)
    if "num_classes" in options:
        cast(Any, backbone).reset_classifier(options["num_classes"])
    if set(options) - {"num_classes"}:
        target = build_backbone(name, options, **shape)
        return _copy_shared(backbone, target)
    return backbone


def _copy_shared(source: nn.Module, target: nn.Module) -> nn.Module:
    """Load the weights of a classifier network into its feature extractor."""
    state = source.state_dict()
    wanted = target.state_dict()
    # timm's feature extractors write `stages_0.` for `stages.0.`
    by_key = {key.replace(".", "_"): value for key, value in state.items()}
    found = {key: by_key.get(key.replace(".", "_")) for key in wanted}
    missing = [key for key, value in found.items() if value is None]
    if missing:
        raise InputError(f"the checkpoint has no {missing[0]} and {len(missing) - 1} more")
    target.load_state_dict(found)
    return target


def _fingerprint(splits: DataSplits) -> str:
    return f"{fingerprint(splits.train)}-{fingerprint(splits.val)}"


def _summary(facts: dict[str, Any], samples: dict[str, int]) -> str:
    lists = (f"{len(value)} {key}" for key, value in facts.items() if isinstance(value, list))
    return ", ".join([*lists, f"{samples['train']} + {samples['val']} samples"]).replace("_", " ")


def _check_same_run(folder: Path, config: RunConfig) -> None:
    """Refuse a folder that holds another run than the one that is asked for."""
    existing = RunConfig.load(folder)
    found = None
    for field in fields(RunConfig):
        old, new = getattr(existing, field.name), getattr(config, field.name)
        if isinstance(old, Recipe | Runtime):
            found = difference(old, new, ignore_changeable=True)
        elif field.name != "versions" and old != new:
            found = field.name, old, new
        if found:
            name, old, new = found
            raise InputError(
                f"{folder} already holds a run with {name}={_short(old)}, not {_short(new)}: "
                f"`--resume {folder}` continues it, another --out starts a new one"
            )


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]} ..."


def _folder(out: str | Path | None, default: str) -> tuple[Path, bool]:
    """The folder of a run, and whether there is a run in it."""
    if out is None:
        names = itertools.chain([default], (f"{default}-{count}" for count in itertools.count(2)))
        free = (Path("runs", name) for name in names if not Path("runs", name).exists())
        return next(free), False
    folder = Path(out)
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file, a run needs a folder")
    return folder, (folder / CONFIG).exists()
