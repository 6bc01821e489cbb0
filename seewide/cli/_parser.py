"""Arguments of the commands, and flags made from option dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from typing import Any, NoReturn, get_type_hints

from seewide.errors import InputError
from seewide.options import default_of

HELP = ("-h", "--help")
WIDTH = 100


class Parser(argparse.ArgumentParser):
    """The arguments of one command; a wrong one is an `InputError`."""

    def __init__(self, name: str, summary: str, details: str) -> None:
        width = min(WIDTH, shutil.get_terminal_size().columns)
        super().__init__(
            prog=f"seewide {name}",
            description=summary,
            epilog=details.strip("\n"),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
                prog, max_help_position=26, width=width
            ),
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` explains the arguments")

    def needs_arguments(self) -> bool:
        """Whether the command has nothing to do without arguments."""
        return any(
            action.required or (not action.option_strings and action.nargs not in ("?", "*"))
            for action in self._actions
        )

    def add(self, *names: str, help: str, **settings: Any) -> None:
        """`add_argument` whose help may contain percent signs."""
        self.add_argument(*names, help=help.replace("%", "%%"), **settings)


def add_flags(parser: Parser, title: str, options: type, show_defaults: bool = False) -> None:
    """Add a flag for each field of a dataclass that wants one.

    Only the flags that are on the command line become attributes of the parsed arguments; their
    values are text, which `seewide.options.replace` reads.
    """
    group = parser.add_argument_group(title)
    kinds = get_type_hints(options)
    for field in dataclasses.fields(options):
        flag = "--" + field.name.replace("_", "-")
        if not field.metadata["flag"] or flag in parser._option_string_actions:
            continue
        settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
        default, text = default_of(field), field.metadata["help"]
        if kinds[field.name] is bool:
            settings["action"] = argparse.BooleanOptionalAction if default else "store_true"
        else:
            settings["metavar"] = metavar(field, kinds[field.name])
            if show_defaults and default != "":
                text = f"{text} Default: {default}."
        group.add_argument(flag, help=text.replace("%", "%%"), **settings)


def metavar(field: dataclasses.Field, kind: Any) -> str:
    """How a value is shown: `a|b`, `N`, `X` or `TEXT`."""
    if choices := field.metadata["choices"]:
        return "|".join(choices)
    return field.metadata["metavar"] or {int: "N", float: "X"}.get(kind, "TEXT")


def given(arguments: argparse.Namespace, options: type) -> dict[str, Any]:
    """The fields of a dataclass whose flags were on the command line."""
    names = {field.name for field in dataclasses.fields(options)}
    return {name: value for name, value in vars(arguments).items() if name in names}


def whole(least: int):
    """An argument type: a whole number of at least `least`."""

    def read(text: str) -> int:
        number = int(text)
        if number < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {number}")
        return number

    read.__name__ = "whole number"
    return read
