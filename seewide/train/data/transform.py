"""From a picture to a tensor, with chance: timm's pipeline by the words of a recipe."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from timm.data import create_transform

from seewide.recipes import Recipe


def train_transform(recipe: Recipe, mean: Sequence[float], std: Sequence[float]) -> Callable:
    """timm's training transform: crop, flip, RandAugment, erasing; PIL in, (3, H, W) out."""
    return create_transform(
        input_size=recipe.image_size,
        is_training=True,
        scale=(recipe.min_crop, 1.0),
        hflip=recipe.flip,
        color_jitter=recipe.color_jitter or None,
        auto_augment=recipe.rand_augment or None,
        interpolation=recipe.interpolation,
        mean=tuple(mean),
        std=tuple(std),
        re_prob=recipe.erase,
        re_mode="pixel",
    )
