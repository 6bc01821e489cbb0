"""`seewide tasks`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields

from seewide.cli._parser import Parser
from seewide.console import print_table
from seewide.options import allowed, default_of

DETAILS = """
`seewide train --task NAME` trains for a task, `--set task.KEY=VALUE` sets one of its
options. Without --task the recipe decides, or the data.

examples:
  seewide tasks
  seewide tasks classification
"""


def arguments(parser: Parser) -> None:
    parser.add("name", "A task, to show its options.", nargs="?", metavar="NAME")


def run(arguments: Namespace) -> None:
    from seewide.tasks import get_task, task_names

    if arguments.name is None:
        tasks = [get_task(name) for name in task_names()]
        columns = ("task", "best weights by", "default recipe")
        rows = [(t.name, t.score.label or t.score.key, t.default_recipe) for t in tasks]
        print_table("", columns, rows)
        return
    rows = [
        (f.name, default_of(f), allowed(f) or "-", f.metadata["help"])
        for f in fields(get_task(arguments.name).Options)
    ]
    print_table("", ("option", "default", "allowed", "what"), rows)
