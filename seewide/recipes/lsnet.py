"""LSNet on ImageNet-1K; the authors' `main.py` builds on DeiT's.

Adaptive gradient clipping, repeated augmentation, no drop path. Without a teacher the networks have
one head; with one they learn the teacher's class in a second head, and the two are averaged.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import AUGMENT
from seewide.recipes._recipe import Family, Recipe, Table, changed

_IN1K = Recipe(
    smoke_model="lsnet_t",
    options=AUGMENT,
    smoke_options={"image_size": 32},
    dataset="ImageNet-1K",
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
    ema_decay=0.99996,
    source="arXiv 2503.23135, Section 4.1; main.py and README of the authors",
    hardware="8 GPUs x 256",
)
_DISTILL = changed(
    _IN1K,
    task="distillation",
    smoke_model="lsnet_t_distill",
    options={"teacher": "regnety_160.deit_in1k", "distill": "hard", "distill_alpha": 0.5},
    smoke_options={"image_size": 32, "teacher": "test_resnet"},
)

FAMILY = Family(
    "LSNet on ImageNet-1K",
    (
        Table(
            _IN1K,
            "recipe model weight_decay expected.top1",
            ("lsnet_t_in1k", "lsnet_t", 0.025, 74.9),
            ("lsnet_s_in1k", "lsnet_s", 0.025, 77.8),
            ("lsnet_b_in1k", "lsnet_b", 0.05, 80.3),
        ),
        Table(
            _DISTILL,
            "recipe model weight_decay expected.top1",
            ("lsnet_t_distill_in1k", "lsnet_t_distill", 0.025, 76.1),
            ("lsnet_s_distill_in1k", "lsnet_s_distill", 0.025, 79.0),
            ("lsnet_b_distill_in1k", "lsnet_b_distill", 0.05, 81.6),
        ),
        Table(
            replace(_IN1K, epochs=100, source="arXiv 2503.23135, Tables 5 to 8"),
            "recipe model note",
            ("lsnet_t_100e", "lsnet_t", "The length of the paper's ablation runs."),
        ),
        Table(
            replace(
                _IN1K,
                smoke_model="",
                batch_size=1024,
                device_batch=128,
                lr=5e-4,
                weight_decay=0.05,
                clip_adaptive=0.0,
                drop_path=0.1,
                source="arXiv 2012.12877, Table 9",
                hardware="8 GPUs x 128",
                note="The baseline of LSNet's comparison; `seewide.surgery.ls_convs_in_vit` puts LS"
                " convolutions in place of its attention, for which LSNet prints 73.0.",
            ),
            "recipe model expected.top1",
            ("deit_t_in1k", "deit_tiny_patch16_224", 72.2),
        ),
    ),
)
