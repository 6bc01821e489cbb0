"""RepLKNet on ImageNet: the commands of the authors' README (arXiv 2203.06717).

RepLKNet-XL has none: it learned from MegData73M, which is not public, and no command was given.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Recipe

_COMMON = replace(PRETRAIN, smoke_model="replknet_31b")
_IN22K = replace(_COMMON, epochs=90, warmup_epochs=5.0, drop_path=0.1, device_batch=32)
_IN22K_FT384 = replace(
    FINE_TUNE_384,
    smoke_model="replknet_31b",
    device_batch=16,
    lr=4e-4,
    min_lr=3e-4,
    warmup_epochs=1.0,
    layer_decay=0.7,
    drop_path=0.3,
    ema_decay=0.9999,
    head_init_scale=1.0,  # the authors' script takes it and does not use it
)


def replknet_31b_in1k() -> Recipe:
    """RepLKNet-31B, 79 M parameters: 83.5 top-1; 8 GPUs x 64 x 4.

    seewide train replknet_31b_in1k --data IMAGENET
    """
    return replace(
        _COMMON,
        model="replknet_31b",
        batch_size=2048,
        device_batch=64,
        lr_batch=2048,
        warmup_epochs=10.0,
        drop_path=0.5,
        ema_decay=0.9999,
    )


def replknet_31b_ft384() -> Recipe:
    """RepLKNet-31B, from 224 to 384 px: 84.8 top-1; 32 GPUs x 32.

    seewide train replknet_31b_ft384 --data IMAGENET --pretrained
    """
    return replace(
        _IN22K_FT384,
        model="replknet_31b.in1k",
        batch_size=1024,
        device_batch=32,
        lr_batch=1024,
        min_lr=1e-6,
        drop_path=0.8,
    )


def replknet_31b_in22k() -> Recipe:
    """RepLKNet-31B on ImageNet-22K, 90 epochs; 128 GPUs x 32.

    seewide train replknet_31b_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return replace(_IN22K, model="replknet_31b")


def replknet_31l_in22k() -> Recipe:
    """RepLKNet-31L on ImageNet-22K, 90 epochs; 128 GPUs x 32.

    seewide train replknet_31l_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return replace(_IN22K, model="replknet_31l")


def replknet_31b_in22k_ft224() -> Recipe:
    """RepLKNet-31B, 22K weights to ImageNet-1K at 224 px: 85.2 top-1; 16 GPUs x 32.

    seewide train replknet_31b_in22k_ft224 --data IMAGENET --checkpoint WEIGHTS
    """
    return replace(
        _IN22K_FT384,
        model="replknet_31b",
        image_size=224,
        crop_pct=0.875,
        crop_mode="center",
        device_batch=32,
        min_lr=1e-6,
        drop_path=0.2,
    )


def replknet_31b_in22k_ft384() -> Recipe:
    """RepLKNet-31B, 22K weights to ImageNet-1K at 384 px: 86.0 top-1; 32 GPUs x 16.

    seewide train replknet_31b_in22k_ft384 --data IMAGENET --checkpoint WEIGHTS
    """
    return replace(_IN22K_FT384, model="replknet_31b")


def replknet_31l_in22k_ft384() -> Recipe:
    """RepLKNet-31L, 22K weights to ImageNet-1K at 384 px: 86.6 top-1; 32 GPUs x 16.

    seewide train replknet_31l_in22k_ft384 --data IMAGENET --checkpoint WEIGHTS
    """
    return replace(_IN22K_FT384, model="replknet_31l")


RECIPES = (
    replknet_31b_in1k,
    replknet_31b_ft384,
    replknet_31b_in22k,
    replknet_31l_in22k,
    replknet_31b_in22k_ft224,
    replknet_31b_in22k_ft384,
    replknet_31l_in22k_ft384,
)
