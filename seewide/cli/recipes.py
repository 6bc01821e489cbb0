"""`seewide recipes`."""

from __future__ import annotations

import fnmatch
from argparse import Namespace
from dataclasses import asdict, fields

from seewide.cli._parser import Parser
from seewide.console import print_table, say
from seewide.errors import InputError
from seewide.options import default_of
from seewide.recipes import RECIPES, Recipe, get

DETAILS = """
`lr` is the peak learning rate for the batch size beside it. Expected results are those of
the paper, on the validation set of the recipe's data. `seewide train NAME --data DIR` uses
a recipe, `--set KEY=VALUE` changes one of its settings.

examples:
  seewide recipes
  seewide recipes "*_ft384"
  seewide recipes lsnet_t_in1k
"""


def arguments(parser: Parser) -> None:
    parser.add("name", "A recipe, or a pattern such as 'lsnet_*'.", nargs="?", metavar="NAME")


def run(arguments: Namespace) -> None:
    name = arguments.name or "*"
    if not set(name) & set("*?["):
        _show(name, get(name))
        return
    found = {known: RECIPES[known] for known in RECIPES if fnmatch.fnmatch(known, name)}
    if not found:
        raise InputError(f"no recipe matches {name!r}; `seewide recipes` lists all recipes")
    columns = ("recipe", "model", "data", "length", "batch", "lr", "expected")
    rows = [
        (
            known,
            recipe.model.partition(".")[0] or "any",
            recipe.dataset,
            recipe.length,
            recipe.batch_size,
            f"{recipe.scaled_lr:g}",
            recipe.expectation or "-",
        )
        for known, recipe in found.items()
    ]
    print_table("", columns, rows, no_wrap=True)


def _show(name: str, recipe: Recipe) -> None:
    """All settings of a recipe: first those that differ from the defaults."""
    settings = asdict(recipe) | {"expected": recipe.expectation}
    defaults = {field.name: default_of(field) for field in fields(Recipe)} | {"expected": ""}
    own = {key: value for key, value in settings.items() if value != defaults[key]}
    own |= {f"task.{key}": value for key, value in own.pop("options", {}).items()}
    rest = {key: "-" if value in ("", (), {}) else value for key, value in defaults.items()}
    for title, values in ((name, own), ("defaults", {k: rest[k] for k in rest if k not in own})):
        say(title)
        for key, value in values.items():
            say(f"  {key:<24}{value}")
