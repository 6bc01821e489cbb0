"""`seewide models` and `seewide recipes`: what there is."""

from __future__ import annotations

from typing import Annotated

import typer

from seewide.errors import unknown


def models(
    pattern: Annotated[str, typer.Argument(help="Such as 'unireplknet_*'.")] = "*",
) -> None:
    """List seewide's networks with their sizes and weights.

    \b
    seewide models
    seewide models "*_t"

    All other models of timm train, evaluate and export just as well.
    """
    import timm
    import torch
    from timm.models import get_arch_pretrained_cfgs

    from seewide.models import list_models
    from seewide.reparam import fuse
    from seewide.train.build import count_parameters
    from seewide.train.console import make_console, make_table, track

    names = list_models(pattern)
    if not names:
        raise unknown("model", pattern, list_models())
    console = make_console()
    columns = "model", "M parameters", "merged", "px", "weights"
    table = make_table("", *columns, left=["model", "weights"])
    rows = []
    for name in track(names, "counting", console):
        with torch.device("meta"):
            model = timm.create_model(name)
            merged = fuse(model)
        sizes = [f"{count_parameters(m.parameters()) / 1e6:.1f}" for m in (model, merged)]
        weights = get_arch_pretrained_cfgs(name).items()
        tags = [full.partition(".")[2] for full, config in weights if config.has_weights]
        side = model.pretrained_cfg["input_size"][-1]
        rows.append((name, *sizes, str(side), ", ".join(filter(None, tags)) or "-"))
    for row in sorted(rows, key=lambda row: float(row[1])):
        table.add_row(*row)
    console.print(table)


def recipes(
    name: Annotated[str | None, typer.Argument(help="One recipe, with all its settings.")] = None,
) -> None:
    """List training recipes, or show all settings of one.

    \b
    seewide recipes
    seewide recipes small_folder

    `seewide train --recipe NAME --set KEY=VALUE` takes one and changes what it says.
    """
    import inspect
    from dataclasses import asdict

    from seewide.recipes import RECIPES, get
    from seewide.train.console import facts, make_console, make_table

    console = make_console()
    if name is not None:
        recipe = get(name)
        console.print(inspect.getdoc(RECIPES[name]), markup=False)
        console.print()
        facts(console, **asdict(recipe))
        return
    columns = "recipe", "px", "epochs", "batch", "what it is"
    table = make_table("", *columns, left=["recipe", "what it is"])
    for known, make in RECIPES.items():
        recipe = make()
        first = (inspect.getdoc(make) or "").partition("\n")[0]
        table.add_row(
            known, str(recipe.image_size), str(recipe.epochs), str(recipe.batch_size), first
        )
    console.print(table)
