"""What `erf`, `analyze` and `report` share: models by name and folders of images."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from seewide.cli._parser import Parser, whole
from seewide.errors import InputError

if TYPE_CHECKING:
    from seewide.analysis.subject import Subject


def add_models(parser: Parser) -> None:
    """Declare the arguments that name models."""
    parser.add("models", metavar="MODEL", nargs="+", help="Run folders, or models of timm.")
    parser.add(
        "--random-weights",
        action="store_true",
        help="Give models that are named random weights, with seed 0.",
    )


def add_data(parser: Parser, help: str) -> None:
    """Declare `--data`."""
    parser.add("--data", metavar="DIR", type=Path, help=help)


def add_image_size(parser: Parser) -> None:
    """Declare `--image-size`."""
    parser.add("--image-size", metavar="N", type=whole(8), help="Side of the images in pixels.")


def needed(data: Path | None, what: str) -> Path:
    """The folder.

    Raises:
        InputError: none was named.
    """
    if data is None:
        raise InputError(f"--data DIR is required: a folder of {what}")
    return data


def load_subjects(arguments: Namespace, random_weights: bool = False) -> list[Subject]:
    """The models of the command line; `random_weights` overrides the flag."""
    size = getattr(arguments, "image_size", None)
    random = random_weights or arguments.random_weights
    return [load_subject(name, size, random) for name in arguments.models]


def load_subject(target: str, image_size: int | None, random_weights: bool) -> Subject:
    """A run, or a timm model with its published weights or with random ones."""
    import torch

    from seewide.analysis.subject import Subject
    from seewide.train.build import build_backbone, mean_and_std
    from seewide.train.evaluate import load_target
