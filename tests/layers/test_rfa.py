"""The aggregator's parameter names: files of version 0.1 load, and the authors' layout is kept."""

import pytest
import torch

import seewide
from seewide.layers import ReceptiveFieldAggregator
from seewide.layers.rfa import RENAMED
from seewide.models.uniconvnet import UniConvNet, authors_state_dict, checkpoint_filter_fn
from seewide.testing import randomize


def small(**kwargs) -> UniConvNet:
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "group_channels": 4}
    return UniConvNet(**sizes, num_classes=3, **kwargs)


def earlier(state: dict) -> dict:
    """The state dict with the names of version 0.1."""
    names = {new: old for old, new in RENAMED.items()}
    return {
        ".".join(names.get(part, part) for part in key.split(".")): value
        for key, value in state.items()
    }


def test_earlier_names_load_into_the_layer():
    layer, other = randomize(ReceptiveFieldAggregator(8)), ReceptiveFieldAggregator(8)
    state = earlier(layer.state_dict())
    assert state.keys() != layer.state_dict().keys()
    other.load_state_dict(state)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in layer.state_dict().items())


def test_earlier_names_that_do_not_fit_are_reported():
    state = earlier(ReceptiveFieldAggregator(8).state_dict())
    state["layers.1.told.extra"] = torch.zeros(1)
    del state["layers.1.told.weight"]
    with pytest.raises(RuntimeError, match=r"context_proj\.weight") as error:
        ReceptiveFieldAggregator(8).load_state_dict(state)
    assert "context_proj.extra" in str(error.value)


@pytest.mark.parametrize("fused", [False, True])
def test_earlier_files_load_into_the_network(fused):
    model, other = randomize(small()).eval(), small().eval()
    if fused:
        model, other = seewide.fuse(model), seewide.fuse(other)
    state = earlier(model.state_dict())
    assert any(".told." in key for key in state)
    assert any(".amplified." in key for key in state)
    seewide.load_checkpoint(other, state)
    assert all(torch.equal(v, other.state_dict()[k]) for k, v in model.state_dict().items())


def test_authors_layout_round_trip():
    model = randomize(small())
    own = model.state_dict()
    theirs = authors_state_dict(own)
    names = ("v21.weight", "v12.weight", "conv3_3.weight", "proj2.weight", "a3.2.weight")
    for name in names:
        assert f"stages.2.0.attn.{name}" in theirs, name
    back = checkpoint_filter_fn(theirs, model)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], own[key]) for key in own)
