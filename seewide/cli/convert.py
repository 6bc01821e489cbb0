"""`seewide convert`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._output import say
from seewide.cli._parser import Parser

DETAILS = """
The tensors keep all their bits; before a file is written, it is converted back and compared.

examples:
  seewide convert unireplknet_a_in1k_224_acc77.03.pth unireplknet_a.safetensors
  seewide convert unireplknet_a.safetensors unireplknet_a.pth --to authors
"""


def arguments(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add("source", metavar="IN", type=Path, help="A checkpoint.")
    parser.add("target", metavar="OUT", type=Path, help="The file to write.")
    parser.add(
        "--to", metavar="seewide|authors", default="seewide", help="Names of the tensors in OUT."
    )
    parser.add(
        "--model",
        metavar="MODEL",
        help="A model of `seewide models`. Default: recognized by names and shapes.",
    )


def run(arguments: Namespace) -> None:
    """Convert the file and print what was done."""
    from seewide.convert import convert

    say(convert(arguments.source, arguments.target, arguments.to, arguments.model))
