"""What a table says of a recipe: its settings at a glance, and the score its docstring gives."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from seewide.recipes._recipe import Recipe


@dataclass(frozen=True)
class Card:
    """A recipe with its words.

    `what` is the docstring's first line without the score and the hardware, which are `top1` (of
    the paper, in percent; empty where there is none) and `hardware` (GPUs x images x passes);
    `source` the first line of its module, which names the paper; `text` the whole docstring.
    """

    name: str
    recipe: Recipe
    what: str
    top1: str
    hardware: str
    source: str
    text: str

    @classmethod
    def of(cls, make: Callable[[], Recipe]) -> Card:
        text = inspect.getdoc(make) or ""
        what, _, hardware = text.partition("\n")[0].rstrip(".").partition("; ")
        what, _, score = what.partition(": ")
        module = inspect.getdoc(inspect.getmodule(make)) or ""
        top1 = re.fullmatch(r"([\d.]+) top-1", score)
        source = module.partition("\n\n")[0].replace("\n", " ")
        return cls(make.__name__, make(), what, top1[1] if top1 else "", hardware, source, text)

    @property
    def family(self) -> str:
        """unireplknet, lsnet, ...; empty for recipes that are of no model."""
        return re.sub(r"(\d+)?_.*", "", self.recipe.model)

    @property
    def special(self) -> str:
        """What sets it apart from AdamW, and mixing and erasing where nothing is fine-tuned."""
        return ", ".join(_special(self.recipe))


def _special(recipe: Recipe) -> Iterator[str]:
    if recipe.layer_decay < 1:
        yield f"layer decay {recipe.layer_decay:g}"
    elif not recipe.mixup and not recipe.cutmix:
        yield "no mixing"
    elif recipe.mixup < 0.8:
        yield f"mixing {recipe.mixup:g}"
    if not recipe.erase:
        yield "no erasing"
    if recipe.label_smoothing != 0.1:
        yield f"smoothing {recipe.label_smoothing:g}"
    if recipe.clip_adaptive:
        yield f"AGC {recipe.clip_adaptive:g}"
    if recipe.repeated_augment > 1:
        yield f"repeat {recipe.repeated_augment}"
    if recipe.teacher:
        yield f"{recipe.distill} labels of {recipe.teacher.partition('.')[0]}"
    if recipe.sparsity:
        yield f"{recipe.sparsity:.0%} sparse" + ("" if recipe.prune_rate else ", fixed")
    if recipe.sync_batch_norm:
        yield "SyncBN"
    if recipe.ema_decay:
        yield "EMA"
