"""`seewide average`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser, whole
from seewide.console import say

DETAILS = """
Writes RUN/average.safetensors from the last epoch-*.safetensors, which a run retains with
--keep-every.

example:
  seewide train unireplknet_a --data flowers --keep-every 1
  seewide average runs/unireplknet_a-flowers --last 5
  seewide eval runs/unireplknet_a-flowers/average.safetensors
"""


def arguments(parser: Parser) -> None:
    parser.add("run", "A run folder.", Path, metavar="RUN")
    parser.add("--last", "How many of the retained epochs.", whole(2), 5)


def run(arguments: Namespace) -> None:
    from seewide.train.averaging import average_checkpoints

    path, epochs = average_checkpoints(arguments.run, arguments.last)
    say(f"written: {path}, the average of the epochs {', '.join(map(str, epochs))}")
