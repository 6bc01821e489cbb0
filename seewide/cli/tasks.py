"""`seewide tasks`."""

from __future__ import annotations

from argparse import Namespace
from dataclasses import fields

from seewide.cli._output import say, show_table
from seewide.cli._parser import Parser
from seewide.options import allowed_range, default_of

DETAILS = """
`seewide train --task NAME` trains for a task, `--set task.KEY=VALUE` sets one of its
options. Without --task the data and the recipe decide.

examples:
  seewide tasks
  seewide tasks classification
"""


def arguments(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add("name", nargs="?", help="A task, to show its options.")


def run(arguments: Namespace) -> None:
    """Print the tasks, or the options of one."""
    from seewide.tasks import get_task, task_names

    names = task_names() if arguments.name is None else [arguments.name]
    kinds = {name: get_task(name) for name in names}
    show_table(
        "",
        ("task", "best weights by", "default recipe"),
        [
            (name, kind.score.label or kind.score.key, kind.default_recipe)
            for name, kind in kinds.items()
        ],
    )
    if arguments.name is None:
        return
    say("")
    for field in fields(kinds[arguments.name].Options):
        value = default_of(field)
        limits = "|".join(field.metadata["choices"]) or allowed_range(field)
        say(f"{field.name} = {value if value not in ('', (), {}) else '-'}")
        say(f"    {field.metadata['help']}{f' Allowed: {limits}.' if limits else ''}")
