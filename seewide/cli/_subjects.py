"""What `erf`, `analyze` and `report` share: networks by name, pictures from folders, bars."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from seewide.errors import InputError

if TYPE_CHECKING:
    from seewide.analysis.subject import Progress, Subject

Models = Annotated[
    list[str],
    typer.Argument(metavar="MODEL...", help="Run folders, or models of seewide or timm."),
]
RandomWeights = Annotated[
    bool, typer.Option("--random-weights", help="Models by name get random weights, seed 0.")
]
Photographs = Annotated[Path | None, typer.Option(metavar="DIR", help="A folder of pictures.")]


def needed(data: Path | None, what: str) -> Path:
    """The folder, or a sentence that says which option names it."""
    if data is None:
        raise InputError(f"--data is a folder of {what}")
    return data


def load_subject(target: str, image_size: int | None, random_weights: bool) -> Subject:
    """A run, or a model by name: with its published weights, or with random ones."""
    import torch

    from seewide.analysis.subject import Subject
    from seewide.preprocess import Preprocess
    from seewide.train.build import build_model
    from seewide.train.evaluate import load_target

    path = Path(target)
    is_file = path.exists() or "/" in target or path.suffix == ".safetensors"
    if random_weights and not is_file:
        torch.manual_seed(0)
        model = build_model(target, None, image_size or 224)
        return Subject(target, model.eval(), Preprocess.of(model, image_size))
    model, info = load_target(target, image_size)
    metrics = []
    if (path / "metrics.jsonl").is_file():
        metrics = [json.loads(line) for line in (path / "metrics.jsonl").open(encoding="utf-8")]
    preprocess = Preprocess(
        info.image_size, info.interpolation, info.crop_pct, info.crop_mode, info.mean, info.std
    )
    return Subject(
        path.name if is_file else target, model.eval(), preprocess,
        trained=True, class_names=info.class_names, metrics=metrics,
    )  # fmt: skip


def classified(folder: Path, subject: Subject) -> list[tuple[Path, int]]:
    """(file, class) of pictures whose folders are named by the network's classes or WordNet ids.

    Raises:
        InputError: folders of other names, or WordNet ids and a network of other classes.
    """
    from seewide.analysis.images import list_pictures
    from seewide.analysis.robustness import list_labelled

    places = {name: i for i, name in enumerate(subject.class_names)}
    paths = list_pictures(folder)
    if all(path.parent.name in places for path in paths):
        return [(path, places[path.parent.name]) for path in paths]
    labelled = list_labelled(folder)
    if (classes := subject.classes()) != 1000:
        raise InputError(
            f"the folders of {folder} are ImageNet's classes, {subject.name} tells {classes} apart"
        )
    return labelled


@contextmanager
def bars(console) -> Iterator[Progress]:
    """progress(what, steps) shows one more bar, and returns what advances it."""
    from seewide.train.console import make_progress

    with make_progress(console) as progress:

        def start(what: str, steps: int):
            return partial(progress.advance, progress.add_task(what, total=steps, note=""))

        yield start
