"""UniConvNet on ImageNet.

A to P2 have the paper's weak recipe, without mixup, cutmix and random erasing; N0 to B have the
strong one. `--set mixup=0.8 --set cutmix=1 --set erase=0.25` turns the weak one into the strong
one. Where tables and commands disagree the commands count, except for A (docs/discrepancies.md).
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Family, Table, changed

_PAPER = "arXiv 2508.09000"

_STRONG = replace(
    PRETRAIN,
    smoke_model="uniconvnet_a",
    ema_decay=0.9999,
    source=f"{_PAPER}, Table 11 (strong); TRAINING.md of the authors",
)
_WEAK = changed(
    _STRONG,
    options={"mixup": 0.0, "cutmix": 0.0, "erase": 0.0},
    source=f"{_PAPER}, Table 11 (weak); TRAINING.md of the authors",
)
_IN22K = replace(
    PRETRAIN,
    smoke_model="uniconvnet_a",
    dataset="ImageNet-22K",
    epochs=90,
    warmup_epochs=5.0,
    device_batch=32,
    drop_path=0.2,
    source=f"{_PAPER}, Table 11; TRAINING.md of the authors",
    hardware="128 GPUs x 32",
)
_FT384 = replace(
    FINE_TUNE_384,
    smoke_model="uniconvnet_a",
    device_batch=8,
    source=f"{_PAPER}, Table 12; TRAINING.md of the authors",
)

FAMILY = Family(
    "UniConvNet on ImageNet",
    (
        Table(
            _WEAK,
            "recipe model drop_path device_batch expected.top1 hardware",
            ("uniconvnet_a_in1k", "uniconvnet_a", 0.05, 256, 77.03, "16 GPUs x 256"),
            ("uniconvnet_p0_in1k", "uniconvnet_p0", 0.05, 256, 79.1, "16 GPUs x 256"),
            ("uniconvnet_p1_in1k", "uniconvnet_p1", 0.05, 128, 79.6, "32 GPUs x 128"),
            ("uniconvnet_p2_in1k", "uniconvnet_p2", 0.08, 128, 80.5, "32 GPUs x 128"),
        ),
        Table(
            _STRONG,
            "recipe model drop_path device_batch expected.top1 hardware",
            ("uniconvnet_n0_in1k", "uniconvnet_n0", 0.08, 128, 81.6, "32 GPUs x 128"),
            ("uniconvnet_n1_in1k", "uniconvnet_n1", 0.1, 128, 82.2, "32 GPUs x 128"),
            ("uniconvnet_n2_in1k", "uniconvnet_n2", 0.1, 64, 82.7, "32 GPUs x 64 x 2"),
            ("uniconvnet_n3_in1k", "uniconvnet_n3", 0.1, 64, 83.2, "32 GPUs x 64 x 2"),
            ("uniconvnet_t_in1k", "uniconvnet_t", 0.2, 64, 84.2, "32 GPUs x 64 x 2"),
            ("uniconvnet_s_in1k", "uniconvnet_s", 0.4, 32, 84.5, "32 GPUs x 32 x 4"),
            ("uniconvnet_b_in1k", "uniconvnet_b", 0.6, 32, 85.0, "32 GPUs x 32 x 4"),
        ),
        Table(
            replace(_FT384, layer_decay=0.7, hardware="32 GPUs x 8 x 2"),
            "recipe model drop_path expected.top1",
            ("uniconvnet_t_ft384", "uniconvnet_t.in1k", 0.4, 85.4),
            ("uniconvnet_s_ft384", "uniconvnet_s.in1k", 0.6, 85.7),
            ("uniconvnet_b_ft384", "uniconvnet_b.in1k", 0.8, 85.9),
        ),
        Table(
            _IN22K,
            "recipe model",
            ("uniconvnet_l_in22k", "uniconvnet_l"),
            ("uniconvnet_xl_in22k", "uniconvnet_xl"),
        ),
        Table(
            replace(_FT384, layer_decay=0.8, ema_decay=0.9999, hardware="64 GPUs x 8"),
            "recipe model drop_path expected.top1",
            ("uniconvnet_l_ft384", "uniconvnet_l.in22k", 0.3, 88.2),
            ("uniconvnet_xl_ft384", "uniconvnet_xl.in22k", 0.35, 88.4),
        ),
    ),
)
