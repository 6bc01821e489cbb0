"""AdamW, its groups, and the cosine schedule of a recipe, from timm."""

from __future__ import annotations

import re

from timm.layers import grn
from timm.models import group_parameters
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from torch import nn
from torch.optim import Optimizer

from seewide.errors import InputError
from seewide.layers import GlobalResponseNorm
from seewide.recipes import Recipe

GRN = GlobalResponseNorm, grn.GlobalResponseNorm


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """AdamW over the groups of `parameter_groups`."""
    return create_optimizer_v2(parameter_groups(model, recipe), opt="adamw", lr=recipe.scaled_lr)


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Parameters by weight decay and, with layer decay, by depth.

    1-D tensors, biases and the model's `no_weight_decay()` names are not decayed. Scale and shift
    of a global response norm are: the authors of ConvNeXt V2 and UniRepLKNet keep them as 4-D
    tensors, which their optimizers decay.

    Depth is that of the model's own `group_matcher`, a group for each block; or, with the recipe's
    `layer_groups`, the authors' (`authors_group`). A group `d` below the classifier's learns at
    `layer_decay ** d` of the rate.
    """
    kept = _not_decayed(model)
    depths = _depths(model, recipe) if recipe.layer_decay < 1 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        depth, decayed = depths.get(name, deepest), name not in kept
        group = groups.setdefault(
            (depth, decayed),
            {"params": [], "weight_decay": recipe.weight_decay if decayed else 0.0},
        )
        if recipe.layer_decay < 1:
            group["lr_scale"] = recipe.layer_decay ** (deepest - depth)
        group["params"].append(parameter)
    return list(groups.values())


def _not_decayed(model: nn.Module) -> set[str]:
    norms = {name for name, module in model.named_modules() if isinstance(module, GRN)}
    kept = set(getattr(model, "no_weight_decay", set)())
    for name, parameter in model.named_parameters():
        small = parameter.ndim <= 1 or name.endswith(".bias")
        if small and name.rpartition(".")[0] not in norms:
            kept.add(name)
    return kept


def _depths(model: nn.Module, recipe: Recipe) -> dict[str, int]:
    names = [name for name, _ in model.named_parameters()]
    if recipe.layer_groups:
        return {name: authors_group(name, recipe.layer_groups) for name in names}
    matcher = getattr(model, "group_matcher", None)
    if matcher is None:
        raise InputError(f"{type(model).__name__} has no group_matcher, so layer_decay must be 1")
    groups = group_parameters(model, matcher(coarse=False))
    return {name: depth for depth, members in groups.items() for name in members}


def authors_group(name: str, groups: int) -> int:
    """The depth of a parameter among 0..groups + 1, as ConvNeXt, UniRepLKNet and UniConvNet count.

    0 is the stem, 1 and 2 the first two stages, from 3 on three blocks of the third stage each,
    `groups` the fourth stage, one more the classifier. With 12 groups and 27 blocks the third
    stage fills 3 to 11. The convolution between two stages goes with the first block after it.
    """
    if name.startswith("stem"):
        return 0
    found = re.match(r"stages\.(\d+)\.(?:blocks\.(\d+)\.)?", name)
    if not found:
        return groups + 1
    stage, block = int(found[1]), int(found[2] or 0)
    return (1, 2, min(3 + block // 3, groups - 1), groups)[stage]


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
