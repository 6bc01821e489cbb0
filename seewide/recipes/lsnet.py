"""LSNet on ImageNet-1K: arXiv 2503.23135, and the authors' `main.py`, which is DeiT's.

Adaptive gradient clipping, repeated augmentation, no drop path. Without a teacher the networks have
one head; with one they learn the teacher's class in a second head, and the two are averaged.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Recipe

_IN1K = Recipe(
    smoke_model="lsnet_t",
    rand_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.4,
    erase=0.25,
    mixup=0.8,
    cutmix=1.0,
    repeated_augment=3,
    epochs=300,
    batch_size=2048,
    device_batch=256,
    lr=1e-3,
    lr_batch=512,  # 4e-3 for 2048
    min_lr=1e-5,
    warmup_epochs=5.0,
    warmup_lr=1e-6,
    weight_decay=0.025,
    clip_adaptive=0.02,
    label_smoothing=0.1,
    ema_decay=0.99996,
)


def _distilled(recipe: Recipe) -> Recipe:
    return replace(
        recipe,
        model=f"{recipe.model}_distill",
        smoke_model="lsnet_t_distill",
        teacher="regnety_160.deit_in1k",
        distill="hard",
        distill_alpha=0.5,
        distill_tau=1.0,
    )


def lsnet_t_in1k() -> Recipe:
    """LSNet-T, 11.4 M parameters: 74.9 top-1; 8 GPUs x 256.

    seewide train lsnet_t_in1k --data IMAGENET
    """
    return replace(_IN1K, model="lsnet_t")


def lsnet_s_in1k() -> Recipe:
    """LSNet-S, 16.1 M parameters: 77.8 top-1; 8 GPUs x 256.

    seewide train lsnet_s_in1k --data IMAGENET
    """
    return replace(_IN1K, model="lsnet_s")


def lsnet_b_in1k() -> Recipe:
    """LSNet-B, 23.2 M parameters, twice the weight decay: 80.3 top-1; 8 GPUs x 256.

    seewide train lsnet_b_in1k --data IMAGENET
    """
    return replace(_IN1K, model="lsnet_b", weight_decay=0.05)


def lsnet_t_distill_in1k() -> Recipe:
    """LSNet-T, taught by RegNetY-16GF: 76.1 top-1; 8 GPUs x 256.

    seewide train lsnet_t_distill_in1k --data IMAGENET
    """
    return _distilled(lsnet_t_in1k())


def lsnet_s_distill_in1k() -> Recipe:
    """LSNet-S, taught by RegNetY-16GF: 79.0 top-1; 8 GPUs x 256.

    seewide train lsnet_s_distill_in1k --data IMAGENET
    """
    return _distilled(lsnet_s_in1k())


def lsnet_b_distill_in1k() -> Recipe:
    """LSNet-B, taught by RegNetY-16GF: 81.6 top-1; 8 GPUs x 256.

    seewide train lsnet_b_distill_in1k --data IMAGENET
    """
    return _distilled(lsnet_b_in1k())


RECIPES = (
    lsnet_t_in1k,
    lsnet_s_in1k,
    lsnet_b_in1k,
    lsnet_t_distill_in1k,
    lsnet_s_distill_in1k,
    lsnet_b_distill_in1k,
)
