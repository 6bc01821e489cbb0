"""Fresh weights."""

from __future__ import annotations

import pytest
import timm
import torch

from seewide.train.build import init_by_fan_in


def test_fan_in():
    model = timm.create_model("unireplknet_a", num_classes=3)
    head = model.get_classifier().weight.clone()
    init_by_fan_in(model)
    assert torch.equal(model.get_classifier().weight, head)
    linear = model.stages[2].blocks[0].fc1
    assert linear.weight.std().item() == pytest.approx(linear.in_features**-0.5, rel=0.1)


@pytest.mark.parametrize("name", ["lsnet_t", "replknet_31b", "resnet18"])
def test_networks_of_batch_norm_alone_keep_theirs(name):
    model = timm.create_model(name, num_classes=3)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    init_by_fan_in(model)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
