"""A training run as a model folder: its weights, its results and how it was trained."""

from __future__ import annotations

import csv
import json
import os
import shutil
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import InputError, write_atomically
from ..recipes import Recipe
from ..tasks.classification import Classification
from ..train import load_run
from ..train.checkpoint import CONFIG, CURVES, RunConfig, WeightsInfo
from ..train.compare import read_run
from .folder import save_pretrained

EVAL = "eval"  # where `seewide eval RUN` writes
SCORES, PER_CLASS, CONFUSION = "scores.json", "per-class.csv", "confusion.png"
EXPORTED = (".onnx", ".xml", ".pt2", ".pte", ".mlpackage")


def save_run(
    run: str | os.PathLike,
    folder: str | os.PathLike | None = None,
    repository: str = "OWNER/NAME",
    license: str = "other",
) -> Path:
    """Write the best model of a run of classification as a model folder; returns the folder.

    The card has the results of `seewide eval` where the run folder has them, otherwise those of
    the best epoch; the curves; the recipe; and the sizes of the files that were exported.

    Args:
        run: a run folder.
        folder: default: `RUN/hub`.
        repository: the name that the card's examples show.
        license: of the weights, in the hub's spelling, such as "apache-2.0".

    Raises:
        InputError: no run, nothing finished in it, or a model that others cannot build again: one
            of another task, or with a stem of another stride.
    """
    run = Path(run)
    if not run.is_dir():
        raise InputError(f"{run} is not a run folder")
    model, task, info = load_run(run)
    if not isinstance(task, Classification):
        raise InputError(
            f"a model folder is of a classifier, which timm and transformers build again; {run} is "
            f"of the task {info.task}"
        )
    if info.backbone.get("stem_stride"):
        raise InputError(
            f"{run} has stem_stride {info.backbone['stem_stride']}, which timm.create_model does "
            "not know; a model folder needs a run without it"
        )
    arguments = dict(info.backbone.get("model_options") or {})
    config = RunConfig.load(run) if (run / CONFIG).is_file() else None
    if config is not None and config.recipe.layer_scale:
        arguments["ls_init_value"] = config.recipe.layer_scale
    target = Path(folder) if folder is not None else run / "hub"
    images = _copy_figures(run, target)
    return save_pretrained(
        model, target, info.facts["class_names"], info.preprocess, arguments, info.header(),
        repository=repository, license=license, dataset=Path(info.data).name,
        metrics=_metrics(run, info, task.score.label), recipe=_recipe(config),
        tables=_tables(run), sizes=_sizes(run), images=images,
    )  # fmt: skip


def _metrics(run: Path, info: WeightsInfo, label: str) -> dict[str, float | str]:
    """The results of `seewide eval`, or of the epoch that the weights are from."""
    try:
        content = json.loads((run / EVAL / SCORES).read_text(encoding="utf-8"))
        scores = {f"{key} (fused)": round(v, 3) for key, v in content["scores"]["fused"].items()}
        return {**scores, "samples": content["samples"], "held out": str(content["data"])}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        pass
    best = read_run(run).best
    names = {key[4:]: value for key, value in best.items() if key.startswith("val_")}
    found = {key: round(value, 3) for key, value in names.items() if value is not None}
    return {**(found or {label: info.score}), "epoch": info.epoch}


def _recipe(config: RunConfig | None) -> dict[str, Any]:
    """The settings that differ from the defaults, and those of the task."""
    if config is None:
        return {}
    described = ("source", "expected", "hardware", "note", "options", "smoke_options")
    plain, values = asdict(Recipe()), asdict(config.recipe)
    changed = {
        key: value for key, value in values.items() if key not in described and value != plain[key]
    }
    versions = ", ".join(f"{name} {number}" for name, number in config.versions.items())
    return {
        "recipe": config.recipe_name, **changed, **config.recipe.options,
        "seed": config.runtime.seed, "training samples": config.samples.get("train", ""),
        "versions": versions,
    }  # fmt: skip


def _tables(run: Path) -> dict[str, list[list[str]]]:
    """Title -> lines of cells; the first line names the columns."""
    path = run / EVAL / PER_CLASS
    if not path.is_file():
        return {}
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (OSError, ValueError, csv.Error):
        return {}
    return {"Per class": lines[:101]} if len(lines) > 1 else {}


def _sizes(run: Path) -> list[dict[str, Any]]:
    """The exported files of the run's folder, which are not uploaded."""
    found = []
    for path in sorted(run.iterdir()):
        if path.suffix in EXPORTED:
            parts = [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]
            files = [f for p in parts for f in ([p] if p.is_file() else p.rglob("*"))]
            megabytes = sum(f.stat().st_size for f in files if f.is_file()) / 1e6
            found.append({"file": path.name, "MB": f"{megabytes:.1f}"})
    return found


def _copy_figures(run: Path, folder: Path) -> list[str]:
    """Copy the run's figures into the folder; their names."""
    names = []
    for path in (run / CURVES, run / EVAL / CONFUSION):
        if path.is_file():
            write_atomically(folder / path.name, partial(shutil.copyfile, path))
            names.append(path.name)
    return names
