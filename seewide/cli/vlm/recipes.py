"""`seewide vlm recipes`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import asdict

from seewide.cli._parser import Parser
from seewide.console import print_facts, print_table

DETAILS = """
examples:
  seewide vlm recipes
  seewide vlm recipes llava15_instruct
"""


def arguments(parser: Parser) -> None:
    parser.add("name", "Show all settings of one.", str, None, "NAME", nargs="?")


def run(arguments: Namespace) -> None:
    from seewide.vision_language.vlm.recipes import RECIPES, get_recipe

    if arguments.name:
        print_facts(**asdict(get_recipe(arguments.name)))
        return
    rows = [(n, r.train, r.epochs, r.batch_size, r.lr, r.source) for n, r in RECIPES.items()]
    print_table("", ("recipe", "trains", "epochs", "batch", "lr", "source"), rows)
