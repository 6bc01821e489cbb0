"""Thousands of pictures instead of millions, on a CPU."""

from __future__ import annotations

from seewide.recipes._recipe import Recipe


def digits() -> Recipe:
    """scikit-learn's handwritten digits (1797 of 8x8 px), drawn up to 32 px.

    seewide train unireplknet_a --data digits
    """
    return Recipe(
        image_size=32,
        crop_pct=1.0,
        min_crop=0.7,
        flip=0.0,  # a mirrored 2 is no digit
        epochs=18,
        batch_size=64,
        lr=4e-3,
        warmup_epochs=1.0,
        ema_decay=0.97,  # of 22 updates an epoch; 0.98 and more trail behind
    )


def small_folder() -> Recipe:
    """A folder of some thousand photographs, from scratch, on a CPU.

    seewide train unireplknet_a --data FLOWERS --image-size 128
    """
    return Recipe(
        image_size=128,
        crop_pct=1.0,
        min_crop=0.25,
        rand_augment="rand-m6-mstd0.5-inc1",
        erase=0.1,
        mixup=0.1,
        cutmix=0.3,
        epochs=25,
        batch_size=32,
        lr=1e-3,
        warmup_epochs=2.0,
        ema_decay=0.998,
    )


RECIPES = (digits, small_folder)
