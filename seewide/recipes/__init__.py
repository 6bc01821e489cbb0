"""Recipes: the settings of training runs as tables, one file per family.

`get("unireplknet_t_in1k")` is a recipe and `.smoke()` its smoke test. A file of this package whose
name has no underscore in front defines `FAMILY`; it needs no entry anywhere else. Expected results
and hardware are the papers'; those of `small_data` are measured here.
"""

from __future__ import annotations

import importlib
import pkgutil

from seewide.errors import unknown
from seewide.recipes._recipe import Family, Recipe, Table, changed, override

__all__ = ["FAMILIES", "RECIPES", "Family", "Recipe", "Table", "changed", "get", "override"]

FAMILIES: dict[str, Family] = {
    module.name: importlib.import_module(f"{__name__}.{module.name}").FAMILY
    for module in pkgutil.iter_modules(__path__)
    if not module.name.startswith("_")
}
RECIPES: dict[str, Recipe] = {
    name: recipe for family in FAMILIES.values() for name, recipe in family.recipes.items()
}


def get(name: str) -> Recipe:
    """The recipe of that name.

    Raises:
        InputError: no such recipe; the sentence names the nearest.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
