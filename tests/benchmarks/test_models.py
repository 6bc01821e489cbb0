"""Networks are compared before they are timed."""

import pytest
import torch
from torch import nn

from benchmarks import models
from benchmarks.conditions import Settings
from benchmarks.ops import WrongResult
from benchmarks.timing import Rounds

QUICK = Settings(quick=True)


def test_run():
    """Merged form, authors' form and yardstick, each with its figures."""
    forms = (models.MERGED, models.AUTHORS)
    run = models.measure("lsnet_t", 1, QUICK, lambda label: label in forms, side=64)
    labels = [row[2] for row in run.rows()]
    assert labels == [*forms, "convnext_atto", "convnext_atto channels_last"]
    assert run.per_mac(run.rounds.best(labels[2:])) == pytest.approx(1)
    assert run.over_authors(models.AUTHORS, best=False) == 1
    assert run.macs == pytest.approx(26e6, rel=0.1)  # 0.315 G at 224 px, by area


def test_per_mac():
    """Twice the time for half of the multiply-adds: four times per multiply-add."""
    rounds = Rounds({"seewide merged": [2.0, 2.0], "convnext_atto": [1.0, 1.0]})
    run = models.Run("a", "batch 1", 1, 50.0, "convnext_atto", 100.0, rounds, {})
    assert run.per_mac("seewide merged") == 4


def test_wrong_network_prints_no_speed(monkeypatch):
    def broken(model: nn.Module) -> nn.Module:
        return nn.Sequential(model, nn.Hardtanh(-0.1, 0.1))

    monkeypatch.setattr(models, "authors_form", broken)
    with pytest.raises(WrongResult, match="no speed is printed"):
        models.measure("lsnet_t", 1, QUICK, side=64)


def test_training_step_trains():
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 5))
    before = model[1].weight.clone()
    step = models._step(model, torch.randn(2, 3, 2, 2), torch.tensor([1, 4]))
    step()
    assert not torch.equal(before, model[1].weight)
