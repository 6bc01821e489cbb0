"""SLaK on ImageNet-1K: arXiv 2207.03620, and the commands of the authors' README.

Dynamic sparsity: 40% of the weights of a network 1.3 times as wide are zero, chosen by SNIP before
the first update; now and then the smallest of the others give way to zeros picked at random.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import PRETRAIN
from seewide.recipes._recipe import Recipe

# T moves half of its weights at a time, seldom; S and B a third, often.
_SPARSE = {"sparsity": 0.4, "sparse_init": "snip", "growth": "random"}
SPARSE_T = {**_SPARSE, "prune_rate": 0.5, "prune_every": 2000}
SPARSE_SB = {**_SPARSE, "prune_rate": 0.3, "prune_every": 100}

_IN1K = replace(PRETRAIN, smoke_model="slak_t", ema_decay=0.9999, sync_batch_norm=1)


def slak_t_in1k() -> Recipe:
    """SLaK-T, 30 M of 51 M parameters: 82.5 top-1; 4 GPUs x 128 x 8.

    seewide train slak_t_in1k --data IMAGENET
    """
    return replace(_IN1K, model="slak_t", drop_path=0.1, device_batch=128, **SPARSE_T)


def slak_s_in1k() -> Recipe:
    """SLaK-S, 55 M of 91 M parameters: 83.8 top-1; 8 GPUs x 64 x 8.

    seewide train slak_s_in1k --data IMAGENET
    """
    return replace(_IN1K, model="slak_s", drop_path=0.4, device_batch=64, **SPARSE_SB)


def slak_b_in1k() -> Recipe:
    """SLaK-B, 95 M of 158 M parameters: 84.0 top-1; 16 GPUs x 32 x 8.

    seewide train slak_b_in1k --data IMAGENET
    """
    return replace(_IN1K, model="slak_b", drop_path=0.5, device_batch=32, **SPARSE_SB)


def slak_t_120e() -> Recipe:
    """SLaK-T in 120 epochs, as the paper compares kernel sizes: 81.6 top-1; 4 GPUs x 128 x 8.

    seewide train slak_t_120e --data IMAGENET
    """
    return replace(slak_t_in1k(), epochs=120)


RECIPES = (slak_t_in1k, slak_s_in1k, slak_b_in1k, slak_t_120e)
