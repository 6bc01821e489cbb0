"""Recipes: functions that return data, one per row of a paper's table, each with a smoke twin.

`get("unireplknet_t_in1k")` is the recipe, `.smoke()` its twin. A docstring says what it trains, the
top-1 to expect on ImageNet-1K, the hardware (GPUs x images x passes), and the command. Scores and
hardware are the papers', not ours; `digits` and `small_folder` are measured here.
"""

from __future__ import annotations

from collections.abc import Callable

from seewide.errors import unknown
from seewide.recipes import lsnet, pelk, replknet, slak, small_data, uniconvnet, unireplknet
from seewide.recipes._card import Card
from seewide.recipes._recipe import Recipe, override

__all__ = ["RECIPES", "Card", "Recipe", "card", "get", "override"]

RECIPES: dict[str, Callable[[], Recipe]] = {
    make.__name__: make
    for family in (small_data, unireplknet, lsnet, uniconvnet, replknet, slak, pelk)
    for make in family.RECIPES
}


def get(name: str) -> Recipe:
    """The recipe of that name, or an InputError that names the nearest."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]()


def card(name: str) -> Card:
    """The recipe of that name with its words, or an InputError that names the nearest."""
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return Card.of(RECIPES[name])
