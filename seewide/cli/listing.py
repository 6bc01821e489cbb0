"""`seewide models` and `seewide recipes`: what there is."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from seewide.errors import InputError, unknown

if TYPE_CHECKING:
    from rich.console import Console

    from seewide.recipes import Card


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
    name: Annotated[
        str | None,
        typer.Argument(help="One recipe, with all its settings, or a pattern such as 'lsnet_*'."),
    ] = None,
) -> None:
    """List training recipes, or show all settings of one.

    \b
    seewide recipes
    seewide recipes "*_ft384"
    seewide recipes lsnet_t_in1k

    px, epochs, batch and lr are the size of the pictures, the passes over them, how many make an
    update, and the highest rate for so many. top-1 is the paper's, on ImageNet-1K.

    `seewide train NAME --data DIR` trains by one; `--set KEY=VALUE` changes what it says.
    """
    import fnmatch

    from seewide.recipes import RECIPES, card
    from seewide.train.console import make_console, make_table

    console = make_console()
    if name in RECIPES or (name is not None and not set(name) & set("*?[")):
        _show(console, card(name))
        return
    cards = [card(known) for known in RECIPES if fnmatch.fnmatch(known, name or "*")]
    if not cards:
        raise InputError(f"no recipe is called {name!r}; `seewide recipes` lists all")
    columns = "recipe", "model", "px", "epochs", "batch", "lr", "top-1", "special"
    table = make_table("", *columns, left=["recipe", "model", "special"])
    for column in table.columns[:2]:  # names to copy
        column.no_wrap = True
    for each in cards:
        recipe = each.recipe
        numbers = recipe.image_size, recipe.epochs, recipe.batch_size, f"{recipe.scaled_lr:g}"
        model = recipe.model.partition(".")[0] or "any"
        table.add_row(each.name, model, *map(str, numbers), each.top1 or "-", each.special)
    console.print(table)


def _show(console: Console, shown: Card) -> None:
    """All of one recipe, its own settings first and the defaults after them."""
    from dataclasses import asdict

    from seewide.recipes import Recipe

    settings, defaults = asdict(shown.recipe), asdict(Recipe())
    width = max(map(len, settings))
    print_ = partial(console.print, markup=False, soft_wrap=True)
    print_(f"{shown.text}\n\nSource: {shown.source}")
    for title, ours in (("Its settings", True), ("As every recipe unless said", False)):
        print_(f"\n{title}", style="bold")
        for key, value in settings.items():
            if (value != defaults[key]) == ours:
                print_(f"{key:<{width}}  {'-' if value == '' else value}")
