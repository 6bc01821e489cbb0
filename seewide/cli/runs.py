"""`seewide runs`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.console import make_console, say

DETAILS = """
Runs that are unfinished or damaged get a line below the table. A single sparse run also
shows the density of each layer and writes it to density.json.

examples:
  seewide runs
  seewide runs runs/pelk_t-flowers runs/pelk_t_dense-flowers --out pelk.png
"""


def arguments(parser: Parser) -> None:
    text = "Run folders, or folders of runs. Default: runs."
    parser.add("folders", text, Path, metavar="FOLDER", nargs="*")
    parser.add("--out", "Figure of all curves.", Path, Path("runs.png"), "FILE")


def run(arguments: Namespace) -> None:
    from seewide.train.compare import draw_runs, find_runs, tabulate
    from seewide.train.density import DENSITY, density_of

    found = find_runs(arguments.folders or [Path("runs")])
    make_console().print(tabulate(found))
    for record in found:
        if record.problem:
            say(f"{record.name}: {record.problem}")
    if len(found) == 1 and found[0].sparse:
        density = density_of(found[0].folder)
        if density is not None:
            make_console().print(density.table())
            say(f"densities: {density.save(found[0].folder / DENSITY)}")
    if any(record.history for record in found):
        say(f"curves: {draw_runs(found, arguments.out)}")
