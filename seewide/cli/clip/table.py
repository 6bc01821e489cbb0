"""`seewide clip table`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._files import write_csv
from seewide.cli._parser import Parser
from seewide.console import print_table, say

DETAILS = """
RESULT is a JSON file of `seewide clip zeroshot --out` or of clip-benchmark, whose set is named
as clip-benchmark names it, or a file of {"cifar10": 61.2}. The paper reports top-1 on all sets.

examples:
  seewide clip table
  seewide clip table cifar10.json pets.json --out table13.csv
"""


def arguments(parser: Parser) -> None:
    parser.add("results", "Your results.", Path, None, "RESULT", nargs="*")
    parser.add("--out", "Also write the table as CSV.", Path, None, "FILE")


def run(arguments: Namespace) -> None:
    from seewide.vision_language.tables import MEANS_13, TABLE_13, fill, mean, read_results

    rows = fill(TABLE_13, read_results(arguments.results))
    means = [mean(row[index] for row in rows) for index in (2, 3, 4)]
    columns = ("set", "name", "UniRepLKNet-L", "ConvNeXt-L", "yours")
    print_table("Table 13: zero-shot top-1 (%)", columns, [*rows, ("mean of 26", "", *means)])
    say("means as printed: " + ", ".join(f"{name} {value}" for name, value in MEANS_13.items()))
    if arguments.out is not None:
        say(f"written: {write_csv(arguments.out, columns, rows)}")
