"""Recipes: functions that return data, one per row of a paper's table, each with a smoke twin.

`get("unireplknet_t_in1k")` is the recipe, `.smoke()` its twin. A docstring says the command, the
hardware, the hours where they are known, and the score to expect; "paper" marks a figure that the
authors print and we have not measured.
"""

from __future__ import annotations

from collections.abc import Callable

from seewide.errors import unknown
from seewide.recipes import small_data, unireplknet
from seewide.recipes._recipe import Recipe, override

__all__ = ["RECIPES", "Recipe", "get", "override"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    function.__name__: function
    for module in (small_data, unireplknet)
    for function in module.RECIPES
}


def get(name: str) -> Recipe:
    """The recipe of that name, or an InputError that names the nearest."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()
