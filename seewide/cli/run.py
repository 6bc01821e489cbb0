"""`seewide run`."""

from __future__ import annotations

import importlib.util
import os
import runpy
import sys
import traceback
from argparse import REMAINDER, Namespace
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import seewide
from seewide.cli._parser import Parser
from seewide.errors import InputError

DETAILS = """
COMMAND is a Python file, the name of an installed command (lightly-train), or a module
(open_clip_train.main). It runs in this process as `python COMMAND` would, with seewide
imported before it, so that timm.create_model in it knows the networks. Its exit code is
that of this command. Flags of `run` itself come before COMMAND, all others are its own.

examples:
  seewide run train.py --model unireplknet_t --data-dir imagenet
  seewide run open_clip_train.main --model unireplknet_a_clip --train-data pairs.csv
  torchrun --nproc-per-node 2 -m seewide run train.py --model lsnet_t
"""
PYTHON_FILES = (".py", ".pyc", ".pyz")


def arguments(parser: Parser) -> None:
    parser.add("-m", "COMMAND is a module, even if a file or command has its name.", bool)
    parser.add("command", "What to run, and its arguments.", metavar="COMMAND", nargs=REMAINDER)


def run(arguments: Namespace) -> int:
    if not arguments.command:
        raise InputError("seewide run needs a command: a Python file, a command or a module")
    name, *words = arguments.command
    start = find(name, is_module=arguments.m)
    assert seewide.__version__  # imported: the networks are registered as soon as timm is
    before = sys.argv, sys.path[:]
    sys.argv = [name, *words]
    try:
        return exit_code(start)
    finally:
        sys.argv, sys.path[:] = before


def exit_code(start: Callable[[], object]) -> int:
    """Run a program to its end; what it raises is printed as Python itself would."""
    try:
        start()
    except SystemExit as stop:
        if stop.code is None or isinstance(stop.code, int):
            return stop.code or 0
        print(stop.code, file=sys.stderr)
        return 1
    except Exception:
        traceback.print_exc()
        return 1
    return 0


def find(name: str, *, is_module: bool = False) -> Callable[[], object]:
    """What runs the file, command or module of this name.

    Raises:
        InputError: there is none.
    """
    path = Path(name)
    if not is_module and (path.is_file() or path.suffix in PYTHON_FILES or os.sep in name):
        if not path.exists():
            raise InputError(f"there is no file {name} to run")
        return lambda: _run_file(path)
    if not is_module:
        for command in entry_points(group="console_scripts", name=name):
            return lambda: sys.exit(command.load()())
    sys.path.insert(0, os.getcwd())
    try:
        found = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a parent is missing, or the name is no name
        found = None
    if found is None:
        kinds = "module" if is_module else "file, command or module"
        raise InputError(f"there is no {kinds} {name} to run")
    return lambda: runpy.run_module(name, run_name="__main__", alter_sys=True)


def _run_file(path: Path) -> None:
    sys.path.insert(0, str(path if path.is_dir() else path.resolve().parent))
    runpy.run_path(str(path), run_name="__main__")
