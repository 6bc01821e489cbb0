"""One budget for several networks: data, image size, epochs; all else is `small_folder`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from seewide.recipes import Recipe, get, override
from seewide.tasks.classification import ClassificationOptions

RECIPE_NAME = "small_folder, changed"


def make_parser(doc: str, epochs: int) -> argparse.ArgumentParser:
    """The options of a budget; `epochs` unless another number is given."""
    parser = argparse.ArgumentParser(description=doc.partition("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of images, as `seewide train` takes it")
    parser.add_argument("--side", type=int, default=128, help="image size in pixels")
    parser.add_argument("--epochs", type=int, default=epochs)
    return parser


def recipe_of(given: argparse.Namespace, **settings: Any) -> Recipe:
    """The recipe of the arguments, with further settings."""
    settings = {"image_size": given.side, "epochs": given.epochs, **settings}
    return override(get("small_folder"), settings, ClassificationOptions)


def run_folder(runs: Path, data: Path, recipe: Recipe) -> Path:
    """A folder for the runs of one budget, so that no run is taken for another budget's."""
    return runs / f"{data.name}-{recipe.options['image_size']}px-{recipe.epochs}e"
