"""Counts against sums by hand and against the authors' numbers."""

import json
from collections.abc import Callable

import pytest
import timm
import torch
from torch import nn

import seewide
from seewide.analysis.cost import Timings, compare_throughput, count_cost, peak_memory
from seewide.errors import InputError


def test_multiply_adds_by_hand():
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),  # 8 * 16 * 16 outputs, 27 taps each
        nn.Conv2d(8, 8, 13, padding=6, groups=8),  # 8 * 16 * 16 outputs, 169 taps each
        nn.BatchNorm2d(8),
        nn.Flatten(),
        nn.Linear(8 * 16 * 16, 10),
    )
    cost = count_cost(model, (2, 3, 32, 32))
    assert cost.macs == 2 * (2048 * 27 + 2048 * 169 + 2048 * 10)
    assert cost.parameters == 8 * 27 + 8 * 169 + 8 + 16 + 2048 * 10 + 10
    assert model.training
    assert str(cost) == "0.0 M parameters, 0.00 G multiply-adds"


def test_multiply_adds_of_attention():
    layer = nn.MultiheadAttention(8, 2, bias=False)

    class Itself(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = layer

        def forward(self, x_LNE):
            return self.layer(x_LNE, x_LNE, x_LNE, need_weights=False)[0]

    tokens, width = 5, 8
    projections, scores = 4 * tokens * width * width, tokens * tokens * width
    assert count_cost(Itself(), (5, 1, 8)).macs == projections + 2 * scores


@pytest.mark.parametrize(
    ("letter", "millions", "giga"), [("a", "4.4", "0.64"), ("t", "31.0", "4.90")]
)
def test_fused_counts_equal_those_of_the_paper(letter, millions, giga):
    """UniRepLKNet, tables 4 and 5."""
    merged = seewide.fuse(timm.create_model(f"unireplknet_{letter}"))
    assert str(count_cost(merged)) == f"{millions} M parameters, {giga} G multiply-adds"


@pytest.mark.parametrize("letter", ["a", "t"])
def test_unfused_counts_equal_those_of_the_authors_code(letter, parity):
    """Those were counted with fvcore, which adds 2 per element of a batch norm, 1 per element
    pooled in squeeze-and-excitation, and 5 per element of the last layer norm."""
    model = timm.create_model(f"unireplknet_{letter}").eval()
    figures = json.loads((parity / "unireplknet.json").read_text())[letter]
    extra = []

    def count(weight: int) -> Callable:
        return lambda module, args: extra.append(weight * args[0].numel())

    for name, module in model.named_modules():
        if isinstance(module, nn.BatchNorm2d):
            module.register_forward_pre_hook(count(2))
        elif name.endswith(".se"):
            module.register_forward_pre_hook(count(1))
    cost = count_cost(model)
    extra.append(5 * model.num_features)
    assert cost.parameters == figures["params"]
    assert cost.macs + sum(extra) == figures["macs"]


def test_peak_memory_of_live_tensors():
    x = torch.zeros(1000)

    def call():
        a = x + 1  # 4000 bytes
        b = a * 2  # 8000
        b.add_(1)  # in place
        c = b.view(10, 100) + a.view(10, 100)  # 12000, views cost nothing
        del a, b
        return c * 2  # 8000

    for _ in range(2):
        assert peak_memory(call) == 12000


def test_peak_memory_of_a_training_step():
    layers = nn.Sequential(*[nn.Sigmoid() for _ in range(10)])
    x = torch.zeros(1000, requires_grad=True)

    def inference():
        with torch.no_grad():
            layers(x)

    assert peak_memory(inference) == 2 * 4000
    assert peak_memory(lambda: layers(x).sum().backward()) >= 10 * 4000


def test_callables_are_timed_alternately():
    calls = []
    timings = compare_throughput(
        {name: lambda name=name: calls.append(name) for name in "abc"}, rounds=6, min_seconds=0
    )
    assert [len(seconds) for seconds in timings.rounds.values()] == [6, 6, 6]
    turns = calls[-18:]
    assert [turns[i] for i in range(0, 18, 3)] == list("abcabc"), "each is first equally often"
    assert all(set(turns[i : i + 3]) == set("abc") for i in range(0, 18, 3))


def test_the_ratio_is_robust_to_slowdowns():
    timings = Timings({"fast": [1, 1, 10, 10, 10], "slow": [2, 2, 20, 20, 20]})
    assert timings.ratio("fast", "slow") == 2
    assert timings.ratio("slow", "fast") == 0.5
    assert timings.median("slow") == 20
    assert timings.spread("fast") == (1, 10)
    assert timings.rows() == [
        ("fast", "1e+04 ms", "1e+03 to 1e+04", "1.00x"),
        ("slow", "2e+04 ms", "2e+03 to 2e+04", "0.50x"),
    ]


def test_bad_input():
    with pytest.raises(InputError, match="got rounds=1"):
        compare_throughput({"a": lambda: None}, rounds=1)
