"""`seewide runs`: training runs side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def runs(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(help="Runs, or folders of runs. Default: runs."),
    ] = None,
    out: Annotated[Path, typer.Option(help="Picture of all curves.")] = Path("runs.png"),
) -> None:
    """Compare training runs: a table, the best first, and their curves in one picture.

    \b
    seewide runs
    seewide runs runs/pelk_t-flowers runs/pelk_t_dense-flowers --out pelk.png

    What is unfinished or damaged gets a sentence below the table, and the rest counts. A single
    sparse run also shows what is left of each layer, and keeps it as density.json.
    """
    from seewide.train.comparing import draw_runs, find_runs, tabulate
    from seewide.train.console import make_console
    from seewide.train.density import DENSITY, density_of

    console = make_console()
    found = find_runs(folders or [Path("runs")])
    console.print(tabulate(found))
    for run in found:
        if run.trouble:
            console.print(f"{run.name}: {run.trouble}", markup=False, soft_wrap=True)
    if len(found) == 1 and found[0].sparse:
        density = density_of(found[0].folder)
        if density is not None:
            console.print(density.table())
            where = density.save(found[0].folder / DENSITY)
            console.print(f"densities: {where}", markup=False, soft_wrap=True)
    if any(run.history for run in found):
        console.print(f"curves: {draw_runs(found, out)}", markup=False, soft_wrap=True)
