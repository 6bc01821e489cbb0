"""`seewide`: the command line.

Each command is a module of this package with `DETAILS` for its help, `arguments(parser)`, which
declares its arguments, and `run(arguments)`. Only the module of the command that was called is
imported, and heavy libraries only when it runs, so that `--help` answers at once.

A group of commands (`seewide clip train`) is a package of such modules, with `COMMANDS` and
`DETAILS` of its own.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from seewide._version import __version__
from seewide.cli._parser import HELP, Parser
from seewide.console import complain
from seewide.errors import InputError, unknown

COMMANDS = {
    "inspect": "Tell what data there is, before any training.",
    "train": "Train a model into a run folder.",
    "eval": "Evaluate a run, or a model with published weights, before and after fusing.",
    "predict": "Apply a trained model to files.",
    "export": "Export the fused model of a run, reload the file and compare the outputs.",
    "convert": "Convert a checkpoint of the authors to safetensors, or back.",
    "average": "Average the weights of the last epochs of a run.",
    "push": "Write a run as a model folder of the Hugging Face hub, and upload it.",
    "run": "Run another program, such as timm's train.py, with the networks registered.",
    "erf": "Measure and draw effective receptive fields.",
    "analyze": "Measure cost, shape bias or robustness of models.",
    "report": "Compare models on one HTML page.",
    "check": "Say whether the files of a run, weights or exported networks are intact.",
    "runs": "Compare training runs in a table and a figure.",
    "models": "List the models with their sizes and weights.",
    "recipes": "List the training recipes, or show all settings of one.",
    "tasks": "List the tasks, or show the options of one.",
    "clip": "Train, evaluate and export CLIP models with open_clip.",
    "vlm": "Train vision-language models with transformers, and talk to them.",
}
GROUPS = ("clip", "vlm")
OVERVIEW = """usage: seewide COMMAND ...

Large-kernel vision for PyTorch: train, fuse, export and analyze networks.

commands:
{}

Begin with: seewide train unireplknet_a --data digits
`seewide COMMAND --help` explains a command."""
GROUP_OVERVIEW = """usage: seewide {0} COMMAND ...

{1}

commands:
{2}
{3}
`seewide {0} COMMAND --help` explains a command."""
INPUT_ERROR, INTERRUPTED, CLOSED_PIPE = 2, 130, 141


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `words`, by default that of the process, and exit.

    Exit codes: 0; 1 if `check` found damage; 2 for an `InputError`, which is printed as one line on
    stderr; 130 after Ctrl-C; 143 after SIGTERM and 129 after SIGHUP during training.
    """
    try:
        code = call(sys.argv[1:] if words is None else words)
        sys.stdout.flush()
        sys.exit(code)
    except InputError as error:
        complain(str(error))
        sys.exit(INPUT_ERROR)
    except KeyboardInterrupt as stop:
        complain(str(stop) or "interrupted")
        sys.exit(INTERRUPTED)
    except BrokenPipeError:  # `seewide models | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(CLOSED_PIPE)


def call(words: Sequence[str]) -> int:
    """Run one command and return its exit code.

    Raises:
        InputError: whatever the user can correct, in one sentence.
    """
    name, *rest = words or HELP
    if name in (*HELP, "--version"):
        print(OVERVIEW.format(_lines(COMMANDS)) if name in HELP else f"seewide {__version__}")
        return 0
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    module = importlib.import_module(f"{__name__}.{name}")
    summary = COMMANDS[name]
    if name in GROUPS:
        group, (name, *rest) = name, rest or HELP
        if name in HELP:
            print(GROUP_OVERVIEW.format(group, summary, _lines(module.COMMANDS), module.DETAILS))
            return 0
        if name not in module.COMMANDS:
            raise unknown(f"command of seewide {group}", name, module.COMMANDS)
        summary = module.COMMANDS[name]
        module = importlib.import_module(f"{__name__}.{group}.{name}")
        name = f"{group} {name}"
    parser = Parser(name, summary, module.DETAILS)
    module.arguments(parser)
    if any(word in HELP for word in parser.own_words(rest)) or (
        not rest and parser.needs_arguments()
    ):
        print(parser.format_help(), end="")
        return 0
    arguments = parser.parse(rest)
    try:
        return module.run(arguments) or 0
    except (MemoryError, RuntimeError, OSError) as error:
        if sentence := _sentence(error):
            raise InputError(sentence) from error
        raise


def _lines(commands: Mapping[str, str]) -> str:
    return "\n".join(f"  {name:<10}{summary}" for name, summary in commands.items())


def _sentence(error: Exception) -> str:
    """What a user can do about an error of the system; empty for any other error."""
    text = str(error).strip().partition("\n")[0]
    if isinstance(error, BrokenPipeError):
        return ""
    if isinstance(error, MemoryError) or "OutOfMemory" in type(error).__name__ + text:
        return f"out of memory: smaller batches or images need less ({text or 'Python'})"
    if isinstance(error, OSError):
        return f"{error.filename}: {error.strerror}" if error.filename else ""
    if "allocate memory" in text or "DataLoader worker" in text:
        return f"{text}; smaller batches, images or fewer --workers need less memory"
    return ""
