"""`seewide`: the command line.

Each command is a module of this package with `DETAILS` for its help, `arguments(parser)`, which
declares its arguments, and `run(arguments)`. Only the module of the command that was called is
imported, and heavy libraries only when it runs, so that `--help` answers at once.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from seewide.cli._parser import HELP, Parser
from seewide.errors import InputError, unknown

COMMANDS = {
    "train": "Train a model into a run folder.",
    "eval": "Evaluate a run, or a model with published weights, before and after fusing.",
    "predict": "Apply a trained model to files.",
    "export": "Export the fused model of a run, reload the file and compare the outputs.",
    "convert": "Convert a checkpoint of the authors to safetensors, or back.",
    "erf": "Measure and draw effective receptive fields.",
    "analyze": "Measure cost, shape bias or robustness of models.",
    "report": "Compare models on one HTML page.",
    "runs": "Compare training runs in a table and a figure.",
    "models": "List the models with their sizes and weights.",
    "recipes": "List the training recipes, or show all settings of one.",
    "tasks": "List the tasks, or show the options of one.",
}
INPUT_ERROR, INTERRUPTED, CLOSED_PIPE = 2, 130, 141


def main(words: Sequence[str] | None = None) -> NoReturn:
    """Run the command line `words`, by default that of the process, and exit.

    Exit codes: 0; 2 for an `InputError`, which is printed as one line on stderr; 130 after Ctrl-C;
    143 after SIGTERM and 129 after SIGHUP during training.
    """
    try:
        sys.exit(call(sys.argv[1:] if words is None else words))
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
    name, *rest = words or ["--help"]
    if name in HELP:
        print(overview())
        return 0
    if name == "--version":
        from seewide._version import __version__

        print(f"seewide {__version__}")
        return 0
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    module = importlib.import_module(f"{__name__}.{name}")
    parser = Parser(name, COMMANDS[name], module.DETAILS)
    module.arguments(parser)
    if any(word in HELP for word in rest) or (not rest and parser.needs_arguments()):
        print(parser.format_help())
        return 0
    arguments = parser.parse_intermixed_args(rest)
    try:
        return module.run(arguments) or 0
    except (MemoryError, RuntimeError, OSError) as error:
        sentence = _sentence(error)
        if sentence is None:
            raise
        raise InputError(sentence) from error


def overview() -> str:
    """The text of `seewide --help`."""
    lines = [f"  {name:<10}{summary}" for name, summary in COMMANDS.items()]
    return "\n".join(
        (
            "usage: seewide COMMAND ...",
            "",
            "Large-kernel vision for PyTorch: train, fuse, export and analyze networks.",
            "",
            "commands:",
            *lines,
            "",
            "Begin with: seewide train unireplknet_a --data digits",
            "`seewide COMMAND --help` explains a command.",
        )
    )


def complain(sentence: str) -> None:
    """Print one line on stderr."""
    from seewide.cli._output import printable

    print(f"seewide: {printable(sentence)}", file=sys.stderr)


def _sentence(error: Exception) -> str | None:
    """What a user can do about an error of the system; None for any other error."""
    text = str(error).strip().partition("\n")[0]
    kind = type(error).__name__
    if isinstance(error, BrokenPipeError):
        return None
    if isinstance(error, MemoryError) or "OutOfMemory" in kind or "allocate memory" in text:
        return f"out of memory; smaller batches, images or models need less ({text or kind})"
    if isinstance(error, RuntimeError):
        return f"{text} Its cause is often a lack of memory." if "DataLoader worker" in text else None
    return f"{error.filename}: {error.strerror}" if getattr(error, "filename", None) else None
