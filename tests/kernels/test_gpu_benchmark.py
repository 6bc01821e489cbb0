"""`make bench-gpu` without a GPU: its parts on small tensors of the CPU, and what it refuses."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks.gpu import aims, cases, networks, operators
from benchmarks.gpu.__main__ import app
from benchmarks.gpu.clock import Budget, Limits

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def limits():
    return Limits.measure("cpu", size=64)


def small(case):
    """The same kind of case with little in it."""
    N, C = 1, 16
    if case.section == "dcnv3":
        C = case.shape[3]
        G = C // int(case.kernel.rpartition(" ")[2])
        shape = (N, 5, 6, C)
        drawn = tuple(torch.randn(N, 5, 6, width) for width in (C, G * 18, G * 9))
    elif case.section == "aggregation":
        shape, drawn = (N, C, 5, 6), (torch.randn(N, C, 5, 6), torch.randn(N, 2, 9, 5, 6))
    else:
        shape = (N, C, 9, 11)
        weight = torch.randn(C, *case.drawn()[1].shape[1:])
        drawn = (torch.randn(shape), weight)
    return replace(case, shape=shape, drawn=lambda: drawn, macs=1e6, dtype=torch.float32)


@pytest.mark.parametrize("make", [cases.depthwise, cases.table_1, cases.aggregation])
def test_operators(make, limits):
    case = next(iter(make()))
    if make is not cases.aggregation:
        case = cases.depthwise_case(case.section, "", (1, 4, 9, 11), 13, torch.float32)
    else:
        case = small(case)
    rows = list(operators.measure([case], limits, "cpu", Budget(60)))
    assert {row.what for row in rows} == set(case.passes)
    assert {row.form for row in rows} >= {cases.OURS}
    for row in rows:
        assert len(row.cells()) == len(operators.COLUMNS)
        assert row.ms > 0 < row.rival_ms


@pytest.mark.slow  # which looks through all networks
@pytest.mark.parametrize("index", [0, 4])  # groups of 8 and of 16 channels
def test_deformable(index, limits):
    case = small(list(cases.deformable())[index])
    rows = list(operators.measure([case], limits, "cpu", Budget(60)))
    assert [row.form for row in rows] == 2 * list(case.forms)


def test_a_wrong_result_is_not_timed(limits):
    case = cases.depthwise_case("depthwise", "", (1, 4, 9, 11), 13, torch.float32)
    wrong = cases.Form(lambda x, weight: case.forms[cases.TORCH].call(x, weight) + 1)
    case = replace(case, forms=case.forms | {cases.OURS: wrong})
    with pytest.raises(operators.WrongResult, match=r"1x4x9x11 K=13 float32, forward: deviates"):
        list(operators.measure([case], limits, "cpu", Budget(60)))


@pytest.mark.slow
def test_networks():
    rows = [
        *networks.inference("lsnet_t", "cpu", 1, 64),
        *networks.inference("convnext_tiny", "cpu", 1, 32),
        *networks.training("lsnet_t", "cpu", 2, 64),
    ]
    forms = [(row.network, row.form) for row in rows]
    ours, stock = ("lsnet_t", networks.SEEWIDE), ("lsnet_t", networks.STOCK)
    theirs = [("convnext_tiny", form) for form in ("timm", "timm channels_last")]
    assert forms == [ours, stock, *theirs, ours, stock]
    assert all(row.ms > 0 and len(row.cells()) == len(networks.COLUMNS) for row in rows)


def test_networks_are_known_to_timm():
    names = {*networks.OURS, *networks.RIVALS, *networks.TRAINED}
    assert set(networks.known(tuple(names))) == names


def test_aims():
    case = cases.depthwise_case("depthwise", "", (64, 384, 32, 32), 31, torch.bfloat16)
    ops = [operators.Row(case, "forward", cases.OURS, 0.1, 3.0, 0.5, 0.5)]
    ops += [operators.Row(case, "weight gradient", cases.OURS, 1.0, 40.0, 0.5, 0.5)]
    step = networks.Row("unireplknet_t", networks.TRAINING, networks.SEEWIDE, 128, 100.0, 5)
    nets = [step, replace(step, form=networks.STOCK, ms=250.0, bytes=4)]
    nets += [networks.Row(name, networks.INFERENCE, "", 128, ms, 0)
             for name, ms in (("pelk_t", 20.0), ("slak_t", 25.0))]  # fmt: skip
    found = {what: (figure, met) for what, figure, met in aims.judge(ops, nets)}
    title = "depthwise 64x384x32x32 K=31 bfloat16"
    assert found[f"{title}, forward: at least 25.0 times the best rival"][1]
    assert not found[f"{title}, weight gradient: at least 50.0 times the best rival"][1]
    assert found[f"{title}: 0.207 ms or less"] == ("0.100 ms", True)
    assert found["pelk_t: at least 1.5 times slak_t's speed"] == ("1.25 times", False)
    assert found["unireplknet_t: a training step twice as fast"] == ("2.50 times", True)
    assert found["unireplknet_t: training in no more memory"] == ("1.25 of stock's", False)


def test_without_time_the_rest_is_named(limits):
    budget = Budget(0)
    case = cases.depthwise_case("depthwise", "", (1, 4, 9, 11), 13, torch.float32)
    assert list(operators.measure([case], limits, "cpu", budget)) == []
    assert budget.left_out[0] == "depthwise 1x4x9x11 K=13 float32, forward"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    result = CliRunner().invoke(app)
    assert result.exit_code == 2
    assert "cuda where there is one" in result.output


@pytest.mark.slow
def test_code_without_a_gpu():
    """Compiled for both architectures, without spills and within their shared memory."""
    call = [sys.executable, "-m", "benchmarks.gpu", "code", "--only", "128x7x7 bf|16x16 K=13 bf"]
    environment = os.environ | {"TRITON_INTERPRET": "0"}
    result = subprocess.run(call, capture_output=True, text=True, cwd=ROOT, env=environment)
    assert result.returncode == 0, result.stderr
    lines = [line.split(" | ") for line in result.stdout.splitlines() if " | sm_" in line]
    assert {line[4] for line in lines} == {"sm_80", "sm_90"}
    assert all(line[6] == "0" and "too much" not in line[7] for line in lines)
    assert any("HGMMA" in line[8] for line in lines)
