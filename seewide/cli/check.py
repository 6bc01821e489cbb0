"""`seewide check`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser

DETAILS = """
Reads every file completely and compares its checksums; in a run folder also the log and the
weights with the last checkpoint. Files of weights, checkpoints, exported networks and
figures can be checked alone. Nothing is changed.

Exit codes: 0 no file is damaged, 1 at least one is, 2 wrong input.

examples:
  seewide check runs/unireplknet_a-digits
  seewide check model.safetensors model.onnx
"""


def arguments(parser: Parser) -> None:
    parser.add("paths", "Run folders or files.", Path, metavar="RUN|FILE", nargs="+")


def run(arguments: Namespace) -> int:
    from seewide.checkpoints.files import DAMAGED
    from seewide.console import print_table, say
    from seewide.train.check import check

    damaged = 0
    for path in arguments.paths:
        found = check(path)
        rows = [
            (_name(report.path, path), f"{report.size:,}", report.verdict, report.detail)
            for report in found
        ]
        print_table("", ("file", "bytes", "verdict", "detail"), rows)
        bad = sum(report.verdict == DAMAGED for report in found)
        say(f"{path}: {f'{bad} of {len(found)} files damaged' if bad else 'nothing is damaged'}")
        damaged += bad
    return 1 if damaged else 0


def _name(file: Path, folder: Path) -> str:
    return file.name if file == folder else file.relative_to(folder).as_posix()
