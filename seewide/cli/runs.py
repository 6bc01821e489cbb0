"""`seewide runs`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._output import say
from seewide.cli._parser import Parser

DETAILS = """
Runs that are unfinished or damaged get a line below the table. A single sparse run also
shows the density of each layer and writes it to density.json.

examples:
  seewide runs
  seewide runs runs/pelk_t-flowers runs/pelk_t_dense-flowers --out pelk.png
"""


def arguments(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add(
        "folders",
        metavar="FOLDER",
        nargs="*",
        type=Path,
        help="Run folders, or folders of runs. Default: runs.",
    )
    parser.add(
        "--out", type=Path, default=Path("runs.png"), help="Figure of all curves. Default: runs.png."
    )


def run(arguments: Namespace) -> None:
    """Print the table, draw the curves."""
    from seewide.cli._output import console
    from seewide.train.compare import draw_runs, find_runs, tabulate
    from seewide.train.density import DENSITY, density_of

    found = find_runs(arguments.folders or [Path("runs")])
    console().print(tabulate(found))
    for record in found:
        if record.problem:
            say(f"{record.name}: {record.problem}")
    if len(found) == 1 and found[0].sparse:
        density = density_of(found[0].folder)
        if density is not None:
            console().print(density.table())
            say(f"densities: {density.save(found[0].folder / DENSITY)}")
    if any(record.history for record in found):
        say(f"curves: {draw_runs(found, arguments.out)}")
