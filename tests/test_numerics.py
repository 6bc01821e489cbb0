"""`seewide.numerics`: errors show at the scale of each tensor."""

import math
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from seewide.numerics import (
    TOLERANCE,
    assert_close,
    compare,
    deviation,
    difference,
    tensors,
    tolerance,
    worst,
)


def test_max_and_rms_are_relative_to_the_reference():
    want = torch.tensor([3.0, 4.0, 0.0, 0.0], dtype=torch.float64)
    found = difference(want + torch.tensor([0.0, 0.0, 0.0, 0.4]), want)
    assert found.max_abs == pytest.approx(0.4)
    assert found.max_rel == pytest.approx(0.1)
    assert found.rms_rel == pytest.approx(0.4 / 5)


def test_an_error_in_a_small_tensor_is_not_hidden_by_a_large_one():
    want = {"weight": torch.full((4,), 1e6), "bias": torch.full((4,), 1e-8)}
    got = {"weight": want["weight"], "bias": want["bias"] * 1.01}
    found = worst(compare(got, want))
    assert found.name == "['bias']"
    assert found.max_rel == pytest.approx(0.01, rel=1e-3)
    with pytest.raises(AssertionError, match=r"gradients deviates by \['bias'\]: max 1.0e-02"):
        assert_close(got, want, "gradients")


def test_an_error_spread_over_small_entries_shows_in_the_rms():
    want = torch.cat([torch.ones(1), torch.full((10_000,), 1e-6)])
    found = difference(torch.cat([torch.ones(1), torch.full((10_000,), 1e-3)]), want)
    assert found.max_rel < 1e-3 * 1.001
    assert found.rms_rel > 0.09


def test_tiny_gradients_do_not_underflow():
    want = torch.full((8,), 1e-200, dtype=torch.float64)
    assert difference(want * 1.5, want).rms_rel == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("got", "want", "reason"),
    [
        (torch.tensor([math.nan]), torch.tensor([1.0]), "NaN"),
        (torch.tensor([1.0]), torch.tensor([math.nan]), "NaN in the reference alone"),
        (torch.tensor([math.nan]), torch.tensor([math.nan]), "NaN, in the reference as well"),
        (torch.ones(2, 3), torch.ones(3, 2), r"shape (2, 3) instead of (3, 2)"),
        (torch.tensor([1, 2]), torch.tensor([1, 3]), "1 of 2 torch.int64 entries differ"),
        (torch.tensor([math.inf]), torch.tensor([-math.inf]), ""),
    ],
)
def test_incomparable_outputs_have_an_infinite_difference(got, want, reason):
    found = difference(got, want)
    assert found.max_rel == math.inf
    assert found.reason == reason
    with pytest.raises(AssertionError):
        assert_close(got, want, factor=1e9)


def test_equal_infinities_and_empty_tensors_are_equal():
    masked = torch.tensor([1.0, -math.inf])
    assert difference(masked, masked).rel == 0
    assert difference(torch.tensor([1.1, -math.inf]), masked).max_rel == pytest.approx(0.1)
    assert difference(torch.empty(0, 3), torch.empty(0, 3)).rel == 0


def test_complex_numbers_keep_their_imaginary_part():
    want = torch.tensor([1 + 1j])
    assert difference(torch.tensor([1 + 0j]), want).max_rel == pytest.approx(0.5**0.5)
    assert tolerance(torch.complex64) == TOLERANCE[torch.float32]


@dataclass
class Output:
    logits: torch.Tensor
    hidden: list


def test_nested_outputs_are_compared_by_place():
    class ModelOutput(OrderedDict):
        pass

    x = torch.ones(2)
    nested = ModelOutput(a=Output(x, [x, None, {"b": (np.ones(3), 4)}]))
    assert [name for name, _ in tensors(nested)] == [
        "['a'].logits",
        "['a'].hidden[0]",
        "['a'].hidden[2]['b'][0]",
        "['a'].hidden[2]['b'][1]",
    ]
    assert deviation(nested, nested) == 0
    other = ModelOutput(a=Output(x, [x, None, {"b": (np.ones(3), 5)}]))
    assert deviation(other, nested) == math.inf, "integers are equal or not"
    assert "2 tensors instead of 4" in compare(ModelOutput(a=Output(x, [x])), nested)[0].reason


def test_mixed_dtypes_have_their_own_tolerance():
    want = (torch.ones(3), torch.ones(3))
    assert_close((want[0], want[1].bfloat16() * 1.01), want)
    with pytest.raises(AssertionError, match=r"\[0\]: max .* more than 1.0e-05 \(torch.float32\)"):
        assert_close((want[0] * 1.01, want[1].bfloat16()), want)
