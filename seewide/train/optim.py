"""AdamW and the cosine schedule of a recipe, from timm."""

from __future__ import annotations

from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from seewide.recipes import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW. 1-D tensors, biases and the model's `no_weight_decay()` names are not decayed."""
    return create_optimizer_v2(
        model,
        opt="adamw",
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay if recipe.layer_decay < 1 else None,
    )


class Schedule:
    """Warm-up, then cosine to `min_lr` at the last update.

    The rate is a function of the number of updates done, so there is no state to save.
    """

    def __init__(self, optimizer: Optimizer, recipe: Recipe, updates_per_epoch: int) -> None:
        total = recipe.epochs * updates_per_epoch
        self.optimizer = optimizer
        self.cosine = CosineLRScheduler(
            optimizer,
            t_initial=max(total, 2),  # timm warns about a cosine of one step
            lr_min=recipe.min_lr,
            warmup_t=min(round(recipe.warmup_epochs * updates_per_epoch), total - 1),
            warmup_lr_init=recipe.warmup_lr,
            t_in_epochs=False,
        )

    def set(self, updates: int) -> float:
        """Set the rate of update number `updates` (from 0); the largest of all groups."""
        self.cosine.step_update(updates)
        return max(group["lr"] for group in self.optimizer.param_groups)
