"""The comparison of sparse and dense PeLK: what it compares, and how it averages."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm

from benchmarks.sparse_width import FORMS, folder_of, mean
from seewide.recipes import get
from seewide.train.sparsity import DynamicSparsity


def parameters(form) -> int:
    """That are not left out."""
    model = timm.create_model(form.model, num_classes=5)
    dense = sum(parameter.numel() for parameter in model.parameters())
    if not form.settings:
        return dense
    masks = DynamicSparsity(model, form.settings["sparsity"], total_updates=1)
    return dense - masks.total + masks.kept


def test_sparse_and_wide_has_the_parameters_of_dense_and_narrow():
    sizes = {form.label: parameters(form) for form in FORMS}
    narrow, sparse, fixed, wide = sizes.values()
    assert sparse == fixed == pytest.approx(narrow, rel=0.02)
    assert wide > 1.5 * narrow


def test_other_conditions_are_other_runs():
    recipe, data = get("small_folder"), Path("flowers")
    folders = {folder_of(form, data, recipe, seed) for form in FORMS for seed in (0, 1)}
    assert len(folders) == 2 * len(FORMS)


def test_curves_are_means_over_the_seeds():
    runs = [[{"epoch": 1, "val_top1": 10.0}, {"epoch": 2, "val_top1": 30.0}],
            [{"epoch": 1, "val_top1": 20.0}, {"epoch": 2, "val_top1": 50.0}]]  # fmt: skip
    assert mean(runs, "val_top1") == [(1, 15.0), (2, 40.0)]
