"""RepLKNet on ImageNet, by the commands of the authors' README.

RepLKNet-XL has no recipe: it was pretrained on MegData73M, which is not public.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Family, Recipe, Table, changed

_SOURCE = "arXiv 2203.06717, Appendix A; README of the authors"

_IN1K = replace(
    PRETRAIN,
    smoke_model="replknet_31b",
    batch_size=2048,
    lr_batch=2048,
    device_batch=64,
    warmup_epochs=10.0,
    drop_path=0.5,
    ema_decay=0.9999,
    source=_SOURCE,
    hardware="8 GPUs x 64 x 4",
)
_IN22K = replace(
    PRETRAIN,
    smoke_model="replknet_31b",
    dataset="ImageNet-22K",
    epochs=90,
    warmup_epochs=5.0,
    drop_path=0.1,
    device_batch=32,
    source=_SOURCE,
    hardware="128 GPUs x 32",
)
_FT = replace(
    FINE_TUNE_384,
    smoke_model="replknet_31b",
    lr=4e-4,
    warmup_epochs=1.0,
    layer_decay=0.7,
    ema_decay=0.9999,
    head_init_scale=1.0,  # the authors' script accepts it and does not use it
    source=_SOURCE,
)
_FT_IN22K = replace(_FT, start_from="checkpoint")

FAMILY = Family(
    "RepLKNet on ImageNet",
    (
        Table(
            _IN1K,
            "recipe model expected.top1",
            ("replknet_31b_in1k", "replknet_31b", 83.5),
        ),
        Table(
            replace(_FT, batch_size=1024, lr_batch=1024, device_batch=32, drop_path=0.8),
            "recipe model expected.top1 hardware",
            ("replknet_31b_ft384", "replknet_31b.in1k", 84.8, "32 GPUs x 32"),
        ),
        Table(
            Recipe(
                options={"label_smoothing": 0.0},
                smoke_options={"image_size": 32},
                dataset="ImageNet-1K",
                optimizer="sgd",
                epochs=100,
                batch_size=256,
                device_batch=32,
                lr=0.1,
                min_lr=0.0,
                warmup_lr=0.0,
                weight_decay=4e-5,
                source="arXiv 2203.06717, Section 3 and Appendix A",
                hardware="8 GPUs x 32",
                note="The baseline; `seewide.surgery.grow_kernels` enlarges its depthwise kernels.",
            ),
            "recipe model",
            ("mobilenetv2_100e", "mobilenetv2_100"),
        ),
        Table(
            _IN22K,
            "recipe model",
            ("replknet_31b_in22k", "replknet_31b"),
            ("replknet_31l_in22k", "replknet_31l"),
        ),
        Table(
            changed(
                _FT_IN22K,
                options={"image_size": 224, "crop_pct": 0.875, "crop_mode": "center"},
                device_batch=32,
                drop_path=0.2,
            ),
            "recipe model expected.top1 hardware",
            ("replknet_31b_in22k_ft224", "replknet_31b", 85.2, "16 GPUs x 32"),
        ),
        Table(
            replace(_FT_IN22K, device_batch=16, min_lr=3e-4, drop_path=0.3),
            "recipe model expected.top1 hardware",
            ("replknet_31b_in22k_ft384", "replknet_31b", 86.0, "32 GPUs x 16"),
            ("replknet_31l_in22k_ft384", "replknet_31l", 86.6, "32 GPUs x 16"),
        ),
    ),
)
