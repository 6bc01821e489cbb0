"""PeLK on ImageNet-1K. There are neither commands nor weights of the authors.

The main models are sparse as SLaK's are (Section 4.4), the ablations are dense and of width 1.0.
The paper does not print, and these recipes choose: SLaK's sparse schedule for each size, the
fine-tuning of ConvNeXt-B, no average of the weights, and 64 images per micro-batch.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Family, Table
from seewide.recipes.slak import COLUMNS, SPARSE

_SOURCE = "arXiv 2403.07589, Appendix A"
_OWN = {"smoke_model": "pelk_t_dense", "device_batch": 64, "source": _SOURCE}
_HARDWARE = "8 GPUs x 64 x 8"
_SPARSE, _DENSE = replace(SPARSE, **_OWN), replace(PRETRAIN, **_OWN, hardware=_HARDWARE)

FAMILY = Family(
    "PeLK on ImageNet-1K",
    (
        Table(
            _SPARSE,
            COLUMNS,
            ("pelk_t_in1k", "pelk_t", 0.1, 0.5, 2000, 64, 82.6, _HARDWARE),
            ("pelk_s_in1k", "pelk_s", 0.4, 0.3, 100, 64, 83.9, _HARDWARE),
            ("pelk_b_in1k", "pelk_b", 0.5, 0.3, 100, 64, 84.2, _HARDWARE),
            ("pelk101_b_in1k", "pelk101_b", 0.5, 0.3, 100, 64, None, _HARDWARE),
        ),
        Table(
            replace(
                FINE_TUNE_384,
                **{**_OWN, "device_batch": 32},
                start_from="checkpoint",
                layer_decay=0.7,
                drop_path=0.8,
                sparsity=0.4,
                prune_rate=0.0,  # SNIP scores weight times gradient: zeros of the checkpoint remain
                hardware="8 GPUs x 32 x 2",
            ),
            "recipe model expected.top1",
            ("pelk_b_ft384", "pelk_b", 85.6),
            ("pelk101_b_ft384", "pelk101_b", 85.8),
        ),
        Table(
            replace(_SPARSE, epochs=120),
            COLUMNS,
            ("pelk_t_120e", "pelk_t", 0.1, 0.5, 2000, 64, None, _HARDWARE),
        ),
        Table(
            replace(_DENSE, epochs=120, drop_path=0.1),
            "recipe model note",
            ("pelk_t_dense_120e", "pelk_t_dense", "Width 1.0, as in the ablations."),
        ),
        Table(
            replace(
                _DENSE,
                epochs=120,
                drop_path=0.1,
                model_options={"base": 1},
                source="arXiv 2403.07589, Tables 5 to 7",
                note="The baseline with dense kernels of 51x51, for the ablations of the grid.",
            ),
            "recipe model",
            ("pelk_t_dense51_120e", "pelk_t_dense"),
        ),
    ),
)
