"""The comparison of sparse and dense PeLK: what it compares, and how it averages."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from benchmarks.sparse_width import VARIANTS, folder_of, mean
from seewide.recipes import get
from seewide.train.sparsity import DynamicSparsity


def parameters(variant) -> int:
    """Non-zero ones."""
    model = timm.create_model(variant.model, num_classes=5)
    dense = sum(parameter.numel() for parameter in model.parameters())
    if not variant.settings:
        return dense
    masks = DynamicSparsity(model, variant.settings["sparsity"], total_steps=1)
    return dense - masks.total + masks.nonzero


def test_sparse_and_wide_has_the_parameters_of_dense_and_narrow():
    sizes = {variant.label: parameters(variant) for variant in VARIANTS}
    narrow, sparse, fixed, wide = sizes.values()
    assert sparse == fixed == pytest.approx(narrow, rel=0.02)
    assert wide > 1.5 * narrow


def test_each_condition_has_a_run_folder():
    recipe, data = get("small_folder"), Path("flowers")
    folders = {folder_of(variant, data, recipe, seed) for variant in VARIANTS for seed in (0, 1)}
    assert len(folders) == 2 * len(VARIANTS)


def test_curves_are_means_over_the_seeds():
    runs = [[{"epoch": 1, "val_top1": 10.0}, {"epoch": 2, "val_top1": 30.0}],
            [{"epoch": 1, "val_top1": 20.0}, {"epoch": 2, "val_top1": 50.0}]]  # fmt: skip
    assert mean(runs, "val_top1") == [(1, 15.0), (2, 40.0)]
