"""UniRepLKNet on ImageNet.

Where the paper's tables and the authors' commands disagree, the commands count, because they made
the weights (docs/discrepancies.md). The commands for ImageNet-1K leave the warm-up to their script,
whose default is 20 epochs; the table says 5, and so do these recipes.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Family, Table, changed

_PAPER = "arXiv 2410.08049"

_IN1K = replace(
    PRETRAIN,
    smoke_model="unireplknet_a",
    warmup_epochs=5.0,
    device_batch=128,
    source=f"{_PAPER}, Table 16; Image/README.md of the authors",
)
_IN22K = replace(
    _IN1K,
    dataset="ImageNet-22K",
    epochs=90,
    drop_path=0.1,
    source=f"{_PAPER}, Table 17; Image/README.md of the authors",
)
_FT384 = replace(
    FINE_TUNE_384,
    smoke_model="unireplknet_a",
    device_batch=64,
    layer_decay=0.8,
    source=f"{_PAPER}, Table 17; Image/README.md of the authors",
)

FAMILY = Family(
    "UniRepLKNet on ImageNet",
    (
        Table(
            _IN1K,
            "recipe model drop_path options.mixup options.cutmix device_batch expected.top1 "
            "hardware note",
            ("unireplknet_a_in1k", "unireplknet_a", 0.0, 0.3, 0.3, 128, 77.03, "4 GPUs x 128 x 8"),
            ("unireplknet_f_in1k", "unireplknet_f", 0.0, 0.3, 0.3, 128, 78.58, "4 GPUs x 128 x 8"),
            ("unireplknet_p_in1k", "unireplknet_p", 0.1, 0.3, 0.3, 128, 80.23, "4 GPUs x 128 x 8"),
            ("unireplknet_n_in1k", "unireplknet_n", 0.1, 0.5, 0.5, 128, 81.64, "4 GPUs x 128 x 8"),
            ("unireplknet_t_in1k", "unireplknet_t", 0.2, 0.8, 1.0, 128, 83.21, "4 GPUs x 128 x 8"),
            ("unireplknet_s_in1k", "unireplknet_s", 0.4, 0.8, 1.0, 64, 83.91, "8 GPUs x 64 x 8",
             "Table 18: 24.6 GB per GPU and 6642 images/s on 8 A100, about 16 hours."),
        ),
        Table(
            replace(
                _IN1K,
                epochs=100,
                drop_path=0.1,
                source=f"{_PAPER}, Tables 2 and 3",
                note="The paper gives epochs and drop path, the other settings are those of T. "
                "Most scores of these tables are mIoU on ADE20K.",
            ),
            "recipe model",
            ("unireplknet_ablation", "unireplknet_t"),
        ),
        Table(
            _IN22K,
            "recipe model drop_path options.image_size lr device_batch hardware",
            ("unireplknet_s_in22k", "unireplknet_s", 0.1, 224, 4e-3, 32, "16 GPUs x 32 x 8"),
            ("unireplknet_b_in22k", "unireplknet_b", 0.1, 224, 4e-3, 32, "16 GPUs x 32 x 8"),
            ("unireplknet_l_in22k", "unireplknet_l", 0.1, 192, 1e-3, 64, "16 GPUs x 64 x 4"),
            ("unireplknet_xl_in22k", "unireplknet_xl", 0.2, 192, 1e-3, 32, "32 GPUs x 32 x 4"),
        ),
        Table(
            replace(_FT384, drop_path=0.2),
            "recipe model expected.top1 hardware",
            ("unireplknet_s_ft384", "unireplknet_s.in22k", 86.44, "4 GPUs x 64 x 2"),
            ("unireplknet_b_ft384", "unireplknet_b.in22k", 87.40, "4 GPUs x 64 x 2"),
        ),
        Table(
            changed(
                _FT384,
                options={"label_smoothing": 0.3},
                epochs=20,
                drop_path=0.3,
                ema_decay=0.9999,
            ),
            "recipe model device_batch expected.top1 hardware",
            ("unireplknet_l_ft384", "unireplknet_l.in22k", 64, 87.88, "4 GPUs x 64 x 2"),
            ("unireplknet_xl_ft384", "unireplknet_xl.in22k", 32, 87.96, "8 GPUs x 32 x 2"),
        ),
    ),
)  # fmt: skip
