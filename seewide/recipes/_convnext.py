"""What ConvNeXt's training script lends to every family but LSNet.

Its values are the defaults of the authors' `main.py` files (UniRepLKNet, UniConvNet, RepLKNet and
SLaK all start from facebookresearch/ConvNeXt); what a paper's table or command says on top is in
the family's file. The rate warms up from 0, and is meant for the batch size that stands beside it:
another batch size scales it in proportion.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Recipe

PRETRAIN = Recipe(
    rand_augment="rand-m9-mstd0.5-inc1",
    color_jitter=0.4,
    erase=0.25,
    mixup=0.8,
    cutmix=1.0,
    epochs=300,
    batch_size=4096,
    lr=4e-3,
    lr_batch=4096,
    min_lr=1e-6,
    warmup_epochs=20.0,
    warmup_lr=0.0,
    weight_decay=0.05,
    label_smoothing=0.1,
)

FINE_TUNE_384 = replace(
    PRETRAIN,
    image_size=384,
    crop_pct=1.0,
    crop_mode="squash",
    mixup=0.0,
    cutmix=0.0,
    epochs=30,
    batch_size=512,
    lr=5e-5,
    lr_batch=512,
    warmup_epochs=0.0,
    weight_decay=1e-8,
    layer_groups=12,
    head_init_scale=0.001,
)
