"""`seewide recipes`."""

from __future__ import annotations

import fnmatch
from argparse import Namespace
from dataclasses import fields
from typing import Any

from seewide.cli._output import say, show_table
from seewide.cli._parser import Parser
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
    """Declare the arguments."""
    parser.add(
        "name",
        nargs="?",
        default="*",
        help="A recipe, to show all its settings, or a pattern such as 'lsnet_*'.",
    )


def run(arguments: Namespace) -> None:
    """Print a table of recipes, or one recipe."""
    name = arguments.name
    if not set(name) & set("*?["):
        show(name, get(name))
        return
    found = {known: RECIPES[known] for known in RECIPES if fnmatch.fnmatch(known, name)}
    if not found:
        raise InputError(f"no recipe matches {name!r}; `seewide recipes` lists all recipes")
    show_table(
        "",
        ("recipe", "model", "task", "data", "length", "batch", "lr", "expected"),
        [
            (
                known,
                recipe.model.partition(".")[0] or "any",
                recipe.task,
                recipe.dataset,
                f"{recipe.steps} steps" if recipe.steps else f"{recipe.epochs} epochs",
                recipe.batch_size,
                f"{recipe.scaled_lr:g}",
                expected(recipe),
            )
            for known, recipe in found.items()
        ],
        no_wrap=("recipe", "model"),
    )


def expected(recipe: Recipe) -> str | None:
    """`top1 83.2`"""
    return ", ".join(f"{metric} {value:g}" for metric, value in recipe.expected.items()) or None


def show(name: str, recipe: Recipe) -> None:
    """Print all settings of a recipe: first those that differ from the defaults."""
    groups: dict[str, list[tuple[str, Any]]] = {name: [], "Defaults": []}
    for field in fields(Recipe):
        value = getattr(recipe, field.name)
        changed = value != default_of(field)
        if field.name in ("options", "smoke_options"):
            prefix = "task." if field.name == "options" else "smoke test: task."
            groups[name] += [(prefix + key, entry) for key, entry in value.items()]
        elif field.name == "expected":
            groups[name] += [("expected", text)] if (text := expected(recipe)) else []
        else:
            groups[name if changed else "Defaults"].append((field.name, value))
    width = max(len(key) for rows in groups.values() for key, _ in rows)
    for title, rows in groups.items():
        say(title)
        for key, value in rows:
            say(f"  {key:<{width}}  {value if value not in ('', (), {}) else '-'}")
