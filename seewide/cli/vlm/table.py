"""`seewide vlm table`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._files import write_csv
from seewide.cli._parser import Parser
from seewide.console import print_table, say

DETAILS = """
RESULT is a JSON file of lmms-eval, or of {"gqa": 59.8}.

examples:
  seewide vlm table
  seewide vlm table results.json --out table14.csv
"""


def arguments(parser: Parser) -> None:
    parser.add("results", "Your results.", Path, None, "RESULT", nargs="*")
    parser.add("--out", "Also write the table as CSV.", Path, None, "FILE")


def run(arguments: Namespace) -> None:
    from seewide.vision_language.tables import TABLE_14, fill, read_results

    rows = fill(TABLE_14, read_results(arguments.results))
    columns = ("benchmark", "task", "metric", "UniRepLKNet-Chat-7B", "LLaVA-1.5-7B", "yours")
    print_table("Table 14", columns, rows)
    if arguments.out is not None:
        say(f"written: {write_csv(arguments.out, columns, rows)}")
