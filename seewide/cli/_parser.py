"""Arguments of the commands, and flags made from option dataclasses."""

from __future__ import annotations

import argparse
import dataclasses
import shutil
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any, NoReturn, get_type_hints

from seewide.errors import InputError
from seewide.options import default_of

HELP = ("-h", "--help")
WIDTH = 100


def whole(least: int) -> Callable[[str], int]:
    """An argument type: a whole number of at least `least`."""

    def number(text: str) -> int:
        if (value := int(text)) < least:
            raise argparse.ArgumentTypeError(f"must be at least {least}, got {value}")
        return value

    number.__name__ = "whole number"
    return number


# Arguments of several commands: help, type, default, metavar.
SHARED = {
    "--task": ("What to evaluate a published model for; a run knows its task.", str, None, "TASK"),
    "--device": ("auto, cpu, cuda, cuda:1 or mps.", str, "auto", "DEVICE"),
    "--image-size": ("Height and width of the images in pixels.", whole(8), None, "PIXELS"),
    "target": (
        "A run folder, an exported file, or a model with published weights.",
        str,
        None,
        "RUN|FILE|MODEL",
    ),
    "models": ("Run folders, or models of timm.", str, None, "MODEL"),
    "--data": ("A folder of images.", Path, None, "DIR"),
    "--random-weights": ("Give named models random weights, with seed 0.", bool, None, ""),
}


class Parser(argparse.ArgumentParser):
    """The arguments of one command; a wrong one is an `InputError`."""

    def __init__(self, name: str, summary: str, details: str) -> None:
        width = min(WIDTH, shutil.get_terminal_size().columns)
        super().__init__(
            prog=f"seewide {name}",
            description=summary,
            epilog=details.strip("\n"),
            formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(prog, 2, 26, width),
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message}; `{self.prog} --help` explains the arguments")

    def own_words(self, words: Sequence[str]) -> list[str]:
        """The words before the command line of another program, if this command takes one."""
        if not self._passes_words():
            return list(words)
        return list(takewhile(lambda word: word.startswith("-"), words))

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Read a command line; positional arguments may stand between flags."""
        return self.parse_args(words) if self._passes_words() else self.parse_intermixed_args(words)

    def _passes_words(self) -> bool:
        return any(action.nargs == argparse.REMAINDER for action in self._actions)

    def needs_arguments(self) -> bool:
        """Whether the command has nothing to do without arguments."""
        return any(action.required for action in self._actions)

    def add(
        self,
        name: str,
        help: str,
        kind: Any = str,
        default: Any = None,
        metavar: str = "",
        **more: Any,
    ) -> None:
        """Declare an argument.

        Args:
            kind: its type; bool makes a flag without a value.
            default: printed with the help.
            metavar: how `--help` shows the value; default: N, PATH or TEXT by its type.
        """
        text = help if default in (None, argparse.SUPPRESS) else f"{help} Default: {default}."
        settings = {"help": text.replace("%", "%%"), "default": default, **more}
        if kind is bool:
            settings["action"] = "store_true"
        else:
            words = {str: "TEXT", Path: "PATH"}
            settings |= {"type": kind, "metavar": metavar or words.get(kind, "N")}
        self.add_argument(name, **settings)

    def share(self, *names: str, **more: Any) -> None:
        """Declare arguments of `SHARED`."""
        for name in names:
            self.add(name, *SHARED[name], **more)

    def add_options(self, title: str, options: type, show_defaults: bool = False) -> None:
        """Declare a flag for each field of a dataclass that wants one.

        Only the flags that are on the command line become attributes of the parsed arguments; their
        values are text, which `seewide.options` reads.
        """
        group = self.add_argument_group(title)
        kinds = get_type_hints(options)
        for field in dataclasses.fields(options):
            flag = f"--{field.name.replace('_', '-')}"
            if not field.metadata["flag"] or flag in self._option_string_actions:
                continue
            default, text = default_of(field), field.metadata["help"]
            settings: dict[str, Any] = {"dest": field.name, "default": argparse.SUPPRESS}
            if kinds[field.name] is bool:
                settings["action"] = argparse.BooleanOptionalAction if default else "store_true"
            else:
                word = {int: "N", float: "X"}.get(kinds[field.name], "TEXT")
                choices = "|".join(field.metadata["choices"])
                settings["metavar"] = choices or field.metadata["metavar"] or word
                text += f" Default: {default}." * (show_defaults and default != "")
            group.add_argument(flag, help=text.replace("%", "%%"), **settings)


def given(arguments: argparse.Namespace, options: type) -> dict[str, Any]:
    """The fields of a dataclass whose flags were on the command line."""
    names = {field.name for field in dataclasses.fields(options) if field.metadata["flag"]}
    return {name: value for name, value in vars(arguments).items() if name in names}


def pairs(settings: Iterable[str]) -> dict[str, str]:
    """`--set KEY=VALUE` as a dict."""
    found = {}
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals:
            raise InputError(f"--set takes KEY=VALUE, got {setting!r}")
        found[key] = value
    return found
