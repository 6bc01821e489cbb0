"""`seewide`: the command line.

The commands say what they do; the work is done in seewide.train, seewide.analysis and their like.
Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from __future__ import annotations

from seewide.cli._app import app, command
from seewide.cli.analysis import analyze, erf, report
from seewide.cli.bench import bench
from seewide.cli.files import convert, export
from seewide.cli.judging import eval_, predict
from seewide.cli.listing import models, recipes
from seewide.cli.runs import runs
from seewide.cli.training import train

# In the order of `seewide --help`.
for function in (train, eval_, predict, export, convert, erf, analyze, report, bench):
    command(function)
command(runs, alone=True)
command(models, alone=True)
command(recipes, alone=True)


def main() -> None:
    """The console script."""
    app()
