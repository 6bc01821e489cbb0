"""UniConvNet on ImageNet: Tables 11 and 12 of arXiv 2508.09000, and the authors' TRAINING.md.

A to P2 have the paper's weak recipe, without mixup, cutmix and erasing; N0 to B the strong one.
`--set mixup=0.8 --set cutmix=1 --set erase=0.25` makes the one of the other. Where table and
commands disagree the commands count, except for A (docs/discrepancies.md).
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Recipe

_STRONG = replace(PRETRAIN, smoke_model="uniconvnet_a", ema_decay=0.9999)
_WEAK = replace(_STRONG, mixup=0.0, cutmix=0.0, erase=0.0)
_IN22K = replace(
    PRETRAIN,
    smoke_model="uniconvnet_a",
    epochs=90,
    warmup_epochs=5.0,
    device_batch=32,
    drop_path=0.2,
)
_FT384 = replace(FINE_TUNE_384, smoke_model="uniconvnet_a", device_batch=8, layer_decay=0.7)
_IN22K_FT384 = replace(_FT384, layer_decay=0.8, ema_decay=0.9999)


def uniconvnet_a_in1k() -> Recipe:
    """UniConvNet-A, 3.4 M parameters, weak: 77.0 top-1; 16 GPUs x 256.

    seewide train uniconvnet_a_in1k --data IMAGENET
    """
    return replace(_WEAK, model="uniconvnet_a", drop_path=0.05, device_batch=256)


def uniconvnet_p0_in1k() -> Recipe:
    """UniConvNet-P0, 5.2 M parameters, weak: 79.1 top-1; 16 GPUs x 256.

    seewide train uniconvnet_p0_in1k --data IMAGENET
    """
    return replace(_WEAK, model="uniconvnet_p0", drop_path=0.05, device_batch=256)


def uniconvnet_p1_in1k() -> Recipe:
    """UniConvNet-P1, 6.1 M parameters, weak: 79.6 top-1; 32 GPUs x 128.

    seewide train uniconvnet_p1_in1k --data IMAGENET
    """
    return replace(_WEAK, model="uniconvnet_p1", drop_path=0.05, device_batch=128)


def uniconvnet_p2_in1k() -> Recipe:
    """UniConvNet-P2, 7.6 M parameters, weak: 80.5 top-1; 32 GPUs x 128.

    seewide train uniconvnet_p2_in1k --data IMAGENET
    """
    return replace(_WEAK, model="uniconvnet_p2", drop_path=0.08, device_batch=128)


def uniconvnet_n0_in1k() -> Recipe:
    """UniConvNet-N0, 10.2 M parameters, strong: 81.6 top-1; 32 GPUs x 128.

    seewide train uniconvnet_n0_in1k --data IMAGENET
    """
    return replace(_STRONG, model="uniconvnet_n0", drop_path=0.08, device_batch=128)


def uniconvnet_n1_in1k() -> Recipe:
    """UniConvNet-N1, 13.1 M parameters, strong: 82.2 top-1; 32 GPUs x 128.

    seewide train uniconvnet_n1_in1k --data IMAGENET
    """
    return replace(_STRONG, model="uniconvnet_n1", drop_path=0.1, device_batch=128)


def uniconvnet_n2_in1k() -> Recipe:
    """UniConvNet-N2, 15.0 M parameters, strong: 82.7 top-1; 32 GPUs x 64 x 2.

    seewide train uniconvnet_n2_in1k --data IMAGENET
    """
    return replace(_STRONG, model="uniconvnet_n2", drop_path=0.1, device_batch=64)


def uniconvnet_n3_in1k() -> Recipe:
    """UniConvNet-N3, 19.7 M parameters, strong: 83.2 top-1; 32 GPUs x 64 x 2.

    seewide train uniconvnet_n3_in1k --data IMAGENET
    """
    return replace(_STRONG, model="uniconvnet_n3", drop_path=0.1, device_batch=64)


def uniconvnet_t_in1k() -> Recipe:
    """UniConvNet-T, 30.3 M parameters, strong: 84.2 top-1; 32 GPUs x 64 x 2.

    seewide train uniconvnet_t_in1k --data IMAGENET
    """
    return replace(_STRONG, model="uniconvnet_t", drop_path=0.2, device_batch=64)


def uniconvnet_s_in1k() -> Recipe:
    """UniConvNet-S, 50.0 M parameters, strong: 84.5 top-1; 32 GPUs x 32 x 4.

    seewide train uniconvnet_s_in1k --data IMAGENET
    """
    return replace(_STRONG, model="uniconvnet_s", drop_path=0.4, device_batch=32)


def uniconvnet_b_in1k() -> Recipe:
    """UniConvNet-B, 97.6 M parameters, strong: 85.0 top-1; 32 GPUs x 32 x 4.

    seewide train uniconvnet_b_in1k --data IMAGENET
    """
    return replace(_STRONG, model="uniconvnet_b", drop_path=0.6, device_batch=32)


def uniconvnet_t_ft384() -> Recipe:
    """UniConvNet-T, from 224 to 384 px: 85.4 top-1; 32 GPUs x 8 x 2.

    seewide train uniconvnet_t_ft384 --data IMAGENET --pretrained
    """
    return replace(_FT384, model="uniconvnet_t.in1k", drop_path=0.4)


def uniconvnet_s_ft384() -> Recipe:
    """UniConvNet-S, from 224 to 384 px: 85.7 top-1; 32 GPUs x 8 x 2.

    seewide train uniconvnet_s_ft384 --data IMAGENET --pretrained
    """
    return replace(_FT384, model="uniconvnet_s.in1k", drop_path=0.6)


def uniconvnet_b_ft384() -> Recipe:
    """UniConvNet-B, from 224 to 384 px: 85.9 top-1; 32 GPUs x 8 x 2.

    seewide train uniconvnet_b_ft384 --data IMAGENET --pretrained
    """
    return replace(_FT384, model="uniconvnet_b.in1k", drop_path=0.8)


def uniconvnet_l_in22k() -> Recipe:
    """UniConvNet-L on ImageNet-22K, 90 epochs; 128 GPUs x 32.

    seewide train uniconvnet_l_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return replace(_IN22K, model="uniconvnet_l")


def uniconvnet_xl_in22k() -> Recipe:
    """UniConvNet-XL on ImageNet-22K, 90 epochs; 128 GPUs x 32.

    seewide train uniconvnet_xl_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return replace(_IN22K, model="uniconvnet_xl")


def uniconvnet_l_ft384() -> Recipe:
    """UniConvNet-L, 22K weights to ImageNet-1K at 384 px: 88.2 top-1; 64 GPUs x 8.

    seewide train uniconvnet_l_ft384 --data IMAGENET --pretrained
    """
    return replace(_IN22K_FT384, model="uniconvnet_l.in22k", drop_path=0.3)


def uniconvnet_xl_ft384() -> Recipe:
    """UniConvNet-XL, 22K weights to ImageNet-1K at 384 px: 88.4 top-1; 64 GPUs x 8.

    seewide train uniconvnet_xl_ft384 --data IMAGENET --pretrained
    """
    return replace(_IN22K_FT384, model="uniconvnet_xl.in22k", drop_path=0.35)


RECIPES = (
    uniconvnet_a_in1k,
    uniconvnet_p0_in1k,
    uniconvnet_p1_in1k,
    uniconvnet_p2_in1k,
    uniconvnet_n0_in1k,
    uniconvnet_n1_in1k,
    uniconvnet_n2_in1k,
    uniconvnet_n3_in1k,
    uniconvnet_t_in1k,
    uniconvnet_s_in1k,
    uniconvnet_b_in1k,
    uniconvnet_t_ft384,
    uniconvnet_s_ft384,
    uniconvnet_b_ft384,
    uniconvnet_l_in22k,
    uniconvnet_xl_in22k,
    uniconvnet_l_ft384,
    uniconvnet_xl_ft384,
)
