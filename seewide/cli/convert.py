"""`seewide convert`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.console import say

DETAILS = """
The tensors keep all their bits; before a file is written, it is converted back and compared.

examples:
  seewide convert unireplknet_a_in1k_224_acc77.03.pth unireplknet_a.safetensors
  seewide convert unireplknet_a.safetensors unireplknet_a.pth --to authors
"""


def arguments(parser: Parser) -> None:
    parser.add("source", "A checkpoint.", Path, metavar="IN")
    parser.add("target", "The file to write.", Path, metavar="OUT")
    parser.add("--to", "Names of the tensors in OUT.", str, "seewide", "seewide|authors")
    parser.add("--model", "A model of `seewide models`. Default: by tensor names and shapes.")


def run(arguments: Namespace) -> None:
    from seewide.checkpoints import convert

    say(convert(arguments.source, arguments.target, arguments.to, arguments.model))
