"""Every rival computes what it is compared with; a wrong one stops the run."""

import dataclasses

import pytest
import torch

from benchmarks.cases import OPERATORS, STOCK, Case, Form, peripheral_case
from benchmarks.conditions import Settings
from benchmarks.ops import BOTH, FORWARD, WrongResult, bind, measure
from seewide.ops import sharing_grid
from seewide.testing import assert_equal

QUICK = Settings(quick=True)


def smallest(name: str) -> Case:
    if name == "peripheral":  # torch takes seconds for the gradients of a real one
        return peripheral_case("test", (2, 8, 14, 15), sharing_grid(13))
    return min(OPERATORS[name](True), key=lambda case: case.macs)


@pytest.mark.parametrize("name", OPERATORS)
def test_forms_agree(name):
    """Results and all gradients of all forms, in both layouts."""
    case = smallest(name)
    tensors = case.draw("cpu", torch.float32)
    want, *rest = [bind(case, form, tensors, BOTH)() for form in case.forms]
    for form, got in zip(case.forms[1:], rest, strict=True):
        for index, (g, w) in enumerate(zip(got, want, strict=True)):
            assert_equal(g, w, f"{form.name}, output {index}", factor=20)


def test_wrong_result_prints_no_speed():
    case = smallest("depthwise")
    shifted = Form("shifted", lambda x, weight: case.forms[0].call(x, weight).roll(1, -1))
    wrong = dataclasses.replace(case, forms=(case.forms[0], shifted))
    with pytest.raises(WrongResult, match=r"shifted.*no speed is printed"):
        measure(wrong, FORWARD, QUICK)


def test_wrong_gradient_prints_no_speed():
    case = smallest("depthwise")

    def detached(x, weight):
        return case.forms[0].call(x, weight.detach()) + 0 * weight.sum()

    stuck = Form("stuck", detached)
    wrong = dataclasses.replace(case, forms=(case.forms[0], stuck))
    with pytest.raises(WrongResult, match="gradient 2"):
        measure(wrong, BOTH, QUICK)


def test_rows():
    """A line per form, with the reasons of the backends on ours."""
    measured = measure(smallest("aggregation"), FORWARD, QUICK)
    rows = list(measured.rows(peak=1e12))
    assert [row[5] for row in rows] == [form.name for form in measured.case.forms]
    notes = {row[5]: row[-1] for row in rows}
    assert notes[STOCK] == ""
    assert "cpu: chosen" in notes["seewide"]


def test_slow_forms_sit_out():
    """What would take minutes by its time on a smaller kernel is left out."""
    case = smallest("depthwise")
    known = {(case.operator, case.shape, FORWARD, "torch channels_last"): 100 / case.weights}
    measured = measure(case, FORWARD, QUICK, known=known)
    assert "torch channels_last" not in measured.rounds.rounds
    assert STOCK in measured.rounds.rounds
