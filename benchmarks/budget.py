"""One budget for several networks: pictures, their side, epochs; the rest is `small_folder`."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

from seewide.recipes import Recipe, get

RECIPE_NAME = "small_folder, changed"


def make_parser(doc: str, epochs: int) -> argparse.ArgumentParser:
    """What a budget consists of; `epochs` unless another number is given."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of pictures, as `seewide train` takes")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--epochs", type=int, default=epochs)
    return parser


def recipe_of(given: argparse.Namespace, **others: float) -> Recipe:
    """The recipe of what `make_parser` read, and of `others` of its keys."""
    return replace(get("small_folder"), image_size=given.side, epochs=given.epochs, **others)


def place(runs: Path, data: Path, recipe: Recipe) -> Path:
    """A folder for the runs of one budget, so that none is taken for another's."""
    return runs / f"{data.name}-{recipe.image_size}px-{recipe.epochs}e"
