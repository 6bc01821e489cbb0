"""Optimizer, parameter groups and learning-rate schedule of a recipe, from timm's factories."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Mapping

from timm.layers import grn
from timm.models import group_parameters
from timm.optim import create_optimizer_v2, list_optimizers
from timm.scheduler import CosineLRScheduler, PolyLRScheduler
from torch import nn
from torch.optim import Optimizer

from seewide.errors import InputError, unknown
from seewide.layers import GlobalResponseNorm
from seewide.recipes import Recipe
from seewide.tasks import find_backbone

GRN = GlobalResponseNorm, grn.GlobalResponseNorm


def make_optimizer(model: nn.Module, recipe: Recipe) -> Optimizer:
    """The recipe's optimizer over `parameter_groups`.

    Raises:
        InputError: timm has no optimizer of that name, or it refuses the recipe's settings.
    """
    if recipe.optimizer not in list_optimizers():
        raise unknown("optimizer", recipe.optimizer, list_optimizers())
    settings = {"betas": recipe.betas} if recipe.betas else {}
    try:
        return create_optimizer_v2(
            parameter_groups(model, recipe), opt=recipe.optimizer, lr=recipe.scaled_lr,
            momentum=recipe.momentum, **settings,
        )  # fmt: skip
    except (TypeError, ValueError) as error:
        raise InputError(
            f"optimizer {recipe.optimizer} does not take these options: {error}"
        ) from None


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict]:
    """Parameters grouped by weight decay and learning-rate scale.

    1-D tensors, biases and the model's `no_weight_decay()` names are not decayed. Scale and shift
    of a global response norm are: the authors of ConvNeXt V2 and UniRepLKNet store them as 4-D
    tensors, which their optimizers decay.

    With layer decay the depth of a parameter of the backbone is that of the backbone's own
    `group_matcher`, one group per block; or, with the recipe's `layer_groups`, the authors'
    (`authors_group`). A group `d` below the deepest has the learning rate times `layer_decay ** d`.
    All that is not part of the backbone belongs to the deepest group. `lr_multipliers` and
    `weight_decay_multipliers` then scale by prefixes of parameter names; the longest one counts.

    Parameters whose names start with a prefix of the recipe's `freeze` are not trained.
    """
    freeze(model, recipe.freeze)
    not_decayed = _not_decayed(model)
    depths = _depths(model, recipe) if recipe.layer_decay < 1 else {}
    deepest = max(depths.values(), default=0)
    groups: dict[tuple[float, float], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        scale = recipe.layer_decay ** (deepest - depths.get(name, deepest))
        scale *= _multiplier(name, recipe.lr_multipliers)
        decay = 0.0 if name in not_decayed else recipe.weight_decay
        decay *= _multiplier(name, recipe.weight_decay_multipliers)
        group = groups.setdefault((scale, decay), {"params": [], "weight_decay": decay})
        if scale != 1:
            group["lr_scale"] = scale
        group["params"].append(parameter)
    if not groups:
        raise InputError(f"freeze={','.join(recipe.freeze)} leaves no parameter to train")
    return list(groups.values())


def freeze(model: nn.Module, prefixes: tuple[str, ...]) -> None:
    """Exclude parameters from training by prefixes of their names.

    Raises:
        InputError: a prefix that no parameter has.
    """
    for prefix in prefixes:
        found = [p for name, p in model.named_parameters() if name.startswith(prefix)]
        if not found:
            raise unknown("prefix to freeze", prefix, {n for n, _ in model.named_children()})
        for parameter in found:
            parameter.requires_grad_(False)


def _multiplier(name: str, multipliers: Mapping[str, float]) -> float:
    found = [prefix for prefix in multipliers if name.startswith(prefix)]
    return multipliers[max(found, key=len)] if found else 1.0


def _not_decayed(model: nn.Module) -> set[str]:
    names = set()
    for prefix, module in model.named_modules():
        own = module.no_weight_decay() if hasattr(module, "no_weight_decay") else ()
        names |= {f"{prefix}.{name}" if prefix else name for name in own}
    norms = {name for name, module in model.named_modules() if isinstance(module, GRN)}
    for name, parameter in model.named_parameters():
        small = parameter.ndim <= 1 or name.endswith(".bias")
        if small and name.rpartition(".")[0] not in norms:
            names.add(name)
    return names


def _depths(model: nn.Module, recipe: Recipe) -> dict[str, int]:
    """The depth of every parameter of the backbone, under its name in the model."""
    backbone = find_backbone(model)
    prefix = next(name for name, module in model.named_modules() if module is backbone)
    prefix = f"{prefix}." if prefix else ""
    names = [name for name, _ in backbone.named_parameters()]
    if recipe.layer_groups:
        depths = {name: authors_group(name, recipe.layer_groups) for name in names}
    else:
        matcher = getattr(backbone, "group_matcher", None)
        if matcher is None:
            kind = type(backbone).__name__
            raise InputError(f"{kind} has no group_matcher, so layer_decay must be 1")
        groups = group_parameters(backbone, matcher(coarse=False))
        depths = {name: depth for depth, members in groups.items() for name in members}
    named = {prefix + name: depth for name, depth in depths.items()}
    if backbone is not model:  # everything around the backbone is one group above it
        deepest = (recipe.layer_groups or max(depths.values(), default=0)) + 1
        others = (name for name, _ in model.named_parameters() if name not in named)
        named |= dict.fromkeys(others, deepest)
    return named


def authors_group(name: str, groups: int) -> int:
    """The depth of a parameter among 0..groups + 1, as ConvNeXt, UniRepLKNet and UniConvNet count.

    0 is the stem, 1 and 2 the first two stages, from 3 on three blocks of the third stage each,
    `groups` the fourth stage, one more the classifier. With 12 groups and 27 blocks the third
    stage fills 3 to 11. The convolution between two stages goes with the first block after it.
    """
    if name.startswith("stem"):
        return 0
    found = re.match(r"stages[._](\d+)\.(?:blocks\.(\d+)\.)?", name)
    if not found:
        return groups + 1
    stage, block = int(found[1]), int(found[2] or 0)
    return (1, 2, min(3 + block // 3, groups - 1), groups)[stage]


class Schedule:
    """Warm-up, then the recipe's schedule: cosine, poly, step or constant.

    The learning rate is a function of the number of optimizer steps done, so there is no state to
    save.

    Args:
        total: optimizer steps of the whole run.
        steps_per_epoch: optimizer steps of an epoch.
    """

    def __init__(
        self, optimizer: Optimizer, recipe: Recipe, total: int, steps_per_epoch: int
    ) -> None:
        self.optimizer, self.recipe = optimizer, recipe
        warmup = recipe.warmup_steps or round(recipe.warmup_epochs * steps_per_epoch)
        self.warmup = min(warmup, total - 1)
        unit = 1 if recipe.steps else steps_per_epoch
        self.milestones = sorted(round(at * unit) for at in recipe.decay_at)
        common = {
            "t_initial": max(total, 2),  # timm warns about a schedule of one step
            "lr_min": recipe.min_lr,
            "warmup_t": self.warmup,
            "warmup_lr_init": recipe.warmup_lr,
            "t_in_epochs": False,
        }
        self.scheduler = None
        if recipe.schedule == "cosine":
            self.scheduler = CosineLRScheduler(optimizer, **common)
        elif recipe.schedule == "poly":
            self.scheduler = PolyLRScheduler(optimizer, power=recipe.poly_power, **common)
        else:
            self._peaks = [group["lr"] for group in optimizer.param_groups]

    def set(self, done: int) -> float:
        """Set the learning rate of the step after `done` ones; returns the largest."""
        if self.scheduler is not None:
            self.scheduler.step_update(done)
        else:
            for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
                group["lr"] = self._rate(done, peak) * group.get("lr_scale", 1.0)
        return max(group["lr"] for group in self.optimizer.param_groups)

    def _rate(self, done: int, peak: float) -> float:
        if done < self.warmup:
            start = self.recipe.warmup_lr
            return start + (peak - start) * done / self.warmup
        if self.recipe.schedule == "constant":
            return peak
        return peak * self.recipe.decay_rate ** bisect_right(self.milestones, done)
