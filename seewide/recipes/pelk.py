"""PeLK on ImageNet-1K: Appendix A of arXiv 2403.07589. There are no commands and no weights.

The main models are sparse as SLaK is (section 4.4), the ablations dense at width 1.0. Not printed,
and chosen: SLaK's sparse schedule for each size, ConvNeXt-B's fine-tuning, no average of the
weights; passes of 64 images on the paper's 8 GPUs.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Recipe
from seewide.recipes.slak import SPARSE_SB, SPARSE_T

_IN1K = replace(PRETRAIN, smoke_model="pelk_t_dense", device_batch=64)

# SNIP scores a weight by weight times gradient: what the checkpoint holds at 0 stays there.
_FT384 = replace(
    FINE_TUNE_384,
    smoke_model="pelk_t_dense",
    device_batch=32,
    layer_decay=0.7,
    drop_path=0.8,
    **{**SPARSE_SB, "prune_rate": 0.0},
)


def pelk_t_in1k() -> Recipe:
    """PeLK-T, 29 M of 49 M parameters: 82.6 top-1; 8 GPUs x 64 x 8.

    seewide train pelk_t_in1k --data IMAGENET
    """
    return replace(_IN1K, model="pelk_t", drop_path=0.1, **SPARSE_T)


def pelk_s_in1k() -> Recipe:
    """PeLK-S, 50 M of 85 M parameters: 83.9 top-1; 8 GPUs x 64 x 8.

    seewide train pelk_s_in1k --data IMAGENET
    """
    return replace(_IN1K, model="pelk_s", drop_path=0.4, **SPARSE_SB)


def pelk_b_in1k() -> Recipe:
    """PeLK-B, 89 M of 150 M parameters: 84.2 top-1; 8 GPUs x 64 x 8.

    seewide train pelk_b_in1k --data IMAGENET
    """
    return replace(_IN1K, model="pelk_b", drop_path=0.5, **SPARSE_SB)


def pelk101_b_in1k() -> Recipe:
    """PeLK-B-101, kernels up to 101 x 101; 8 GPUs x 64 x 8.

    seewide train pelk101_b_in1k --data IMAGENET
    Judged after fine-tuning.
    """
    return replace(pelk_b_in1k(), model="pelk101_b")


def pelk_b_ft384() -> Recipe:
    """PeLK-B, from 224 to 384 px: 85.6 top-1; 8 GPUs x 32 x 2.

    seewide train pelk_b_ft384 --data IMAGENET --checkpoint RUN
    """
    return replace(_FT384, model="pelk_b")


def pelk101_b_ft384() -> Recipe:
    """PeLK-B-101, from 224 to 384 px: 85.8 top-1; 8 GPUs x 32 x 2.

    seewide train pelk101_b_ft384 --data IMAGENET --checkpoint RUN
    """
    return replace(_FT384, model="pelk101_b")


def pelk_t_120e() -> Recipe:
    """PeLK-T in 120 epochs, sparse; 8 GPUs x 64 x 8.

    seewide train pelk_t_120e --data IMAGENET
    """
    return replace(pelk_t_in1k(), epochs=120)


def pelk_t_dense_120e() -> Recipe:
    """PeLK-T of width 1.0 in 120 epochs, dense, as the ablations; 8 GPUs x 64 x 8.

    seewide train pelk_t_dense_120e --data IMAGENET
    """
    return replace(_IN1K, model="pelk_t_dense", epochs=120, drop_path=0.1)


RECIPES = (
    pelk_t_in1k,
    pelk_s_in1k,
    pelk_b_in1k,
    pelk101_b_in1k,
    pelk_b_ft384,
    pelk101_b_ft384,
    pelk_t_120e,
    pelk_t_dense_120e,
)
