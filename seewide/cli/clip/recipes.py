"""`seewide clip recipes`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from seewide.cli._parser import Parser
from seewide.console import print_facts, print_table
from seewide.vision_language.clip.recipes import RECIPES, get_recipe

DETAILS = """
examples:
  seewide clip recipes
  seewide clip recipes paper_l
"""


def arguments(parser: Parser) -> None:
    parser.add("name", "Show all settings of one.", str, None, "NAME", nargs="?")


def run(arguments: Namespace) -> None:
    if arguments.name:
        settings = asdict(get_recipe(arguments.name))
        print_facts(**{key: "-" if value == "" else value for key, value in settings.items()})
        return
    rows = [
        (name, recipe.config, recipe.epochs, recipe.batch_size, recipe.lr, recipe.source or "-")
        for name, recipe in RECIPES.items()
    ]
    print_table("", ("recipe", "configuration", "epochs", "batch", "lr", "source"), rows)
