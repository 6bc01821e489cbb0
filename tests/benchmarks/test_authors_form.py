"""The baseline computes what our networks compute, with nothing of ours inside."""

import pytest
import timm
import torch
from torch import nn

import seewide
from benchmarks.authors_form import authors_form
from seewide.layers import DepthwiseConv2d, PeripheralConv2d
from seewide.ops._dispatch import Operator
from seewide.testing import assert_equal, randomize

TINY = {"num_classes": 7, "depths": (1, 1, 2, 1)}
SMALL = {
    "unireplknet_a": {"dims": (8, 16, 24, 32), **TINY},
    "lsnet_t": {"dims": (16, 24, 32, 48), "num_classes": 7, "depths": (1, 2, 2, 2)},
    "uniconvnet_a": {"dims": (16, 32, 32, 48), **TINY},
    "pelk_t": {"dims": (16, 16, 24, 24), **TINY},
    "replknet_31b": {"dims": (8, 16, 24, 32), "kernel_sizes": (13, 11, 9, 7), **TINY},
}


@pytest.fixture(params=SMALL)
def model(request) -> nn.Module:
    return randomize(timm.create_model(request.param, **SMALL[request.param])).eval()


@pytest.mark.parametrize("merged", [False, True], ids=["training", "merged"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_computes_the_same(model, merged, layout):
    model = seewide.fuse(model) if merged else model
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        theirs = authors_form(model).to(memory_format=layout)
        assert_equal(theirs(x.contiguous(memory_format=layout)), model(x), "logits", factor=10)


def test_calls_none_of_our_operators(model, monkeypatch):
    def refuse(self, *args):
        raise AssertionError(f"{self.name} was called")

    theirs = authors_form(model)
    monkeypatch.setattr(Operator, "__call__", refuse)
    with torch.no_grad():
        theirs(torch.randn(1, 3, 64, 64))
    kinds = {type(module) for module in theirs.modules()}
    assert not kinds & {DepthwiseConv2d, PeripheralConv2d}


def test_leaves_the_model_alone(model):
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(x)
        theirs = authors_form(model)
        for parameter in theirs.parameters():
            parameter.zero_()
        assert torch.equal(model(x), before)


def test_trains(model):
    """Every parameter that trains in our form gets a gradient in theirs."""
    theirs = authors_form(model.train())
    theirs(torch.randn(4, 3, 64, 64)).sum().backward()
    model(torch.randn(4, 3, 64, 64)).sum().backward()
    trained = [sum(p.grad is not None for p in m.parameters()) for m in (theirs, model)]
    assert trained[0] == trained[1] > 0
