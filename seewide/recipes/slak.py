"""SLaK on ImageNet-1K, by the commands of the authors' README.

Dynamic sparsity: 40% of the weights of a network 1.3 times as wide are zero, chosen by SNIP before
the first step; from time to time the smallest of the others are exchanged for random ones.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import PRETRAIN
from seewide.recipes._recipe import Family, Table

SPARSE = replace(PRETRAIN, sparsity=0.4, sparse_init="snip", growth="random")
_IN1K = replace(
    SPARSE,
    smoke_model="slak_t",
    ema_decay=0.9999,
    sync_batch_norm=True,
    source="arXiv 2207.03620, Section 4; README of the authors",
)
# T exchanges half of its weights at a time, every 2000 steps; S and B a third, every 100.
COLUMNS = "recipe model drop_path prune_rate prune_every device_batch expected.top1 hardware"

FAMILY = Family(
    "SLaK on ImageNet-1K",
    (
        Table(
            _IN1K,
            COLUMNS,
            ("slak_t_in1k", "slak_t", 0.1, 0.5, 2000, 128, 82.5, "4 GPUs x 128 x 8"),
            ("slak_s_in1k", "slak_s", 0.4, 0.3, 100, 64, 83.8, "8 GPUs x 64 x 8"),
            ("slak_b_in1k", "slak_b", 0.5, 0.3, 100, 32, 84.0, "16 GPUs x 32 x 8"),
        ),
        Table(
            replace(_IN1K, epochs=120),
            COLUMNS,
            ("slak_t_120e", "slak_t", 0.1, 0.5, 2000, 128, 81.6, "4 GPUs x 128 x 8"),
        ),
    ),
)
