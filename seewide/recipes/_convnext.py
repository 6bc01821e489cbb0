"""The settings of ConvNeXt's training script, which every family but LSNet starts from.

They are the defaults of the authors' `main.py` files: UniRepLKNet, UniConvNet, RepLKNet and SLaK
all build on facebookresearch/ConvNeXt. What a paper's table or command says beyond them is in the
family's file. The learning rate is meant for the batch size beside it and scales in proportion.
"""

from __future__ import annotations

from seewide.recipes._recipe import Recipe, changed

AUGMENT = {
    "rand_augment": "rand-m9-mstd0.5-inc1",
    "color_jitter": 0.4,
    "erase": 0.25,
    "mixup": 0.8,
    "cutmix": 1.0,
    "label_smoothing": 0.1,
}

PRETRAIN = Recipe(
    options=AUGMENT,
    smoke_options={"image_size": 32},
    dataset="ImageNet-1K",
    epochs=300,
    batch_size=4096,
    lr=4e-3,
    lr_batch=4096,
    min_lr=1e-6,
    warmup_epochs=20.0,
    warmup_lr=0.0,
    weight_decay=0.05,
)

FINE_TUNE_384 = changed(
    PRETRAIN,
    options={
        "image_size": 384,
        "crop_pct": 1.0,
        "crop_mode": "squash",
        "mixup": 0.0,
        "cutmix": 0.0,
    },
    start_from="pretrained",
    epochs=30,
    batch_size=512,
    lr=5e-5,
    lr_batch=512,
    warmup_epochs=0.0,
    weight_decay=1e-8,
    layer_groups=12,
    head_init_scale=0.001,
)
