"""`make bench-gpu` without a GPU: its parts on small tensors of the CPU, and what it refuses."""

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from benchmarks import conditions
from benchmarks.__main__ import main
from benchmarks.gpu import aims, cases, estimate, networks, operators, page
from benchmarks.gpu import run as gpu
from benchmarks.gpu.__main__ import app
from benchmarks.gpu.authors import aggregation as published
from benchmarks.gpu.clock import Budget, Limits
from benchmarks.gpu.run import BUDGET, WHOLE, Part
from benchmarks.shapes import unique
from seewide.console import make_console
from seewide.errors import InputError
from seewide.layers import DCNv3
from seewide.ops import small_kernel_aggregation_reference
from seewide.testing import assert_matches_reference

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
        shape, k = (N, 1, 5, 6), 13  # cells of PeLK's K=47
        drawn = (torch.randn(shape), torch.randn(1, k, k))
    return replace(case, shape=shape, drawn=lambda: drawn, macs=1e6, dtype=torch.float32)


def checked(case, limits):
    """Every form of every pass has been timed, ours after they agreed with torch's own."""
    budget = Budget(60)
    rows = list(operators.measure([case], limits, "cpu", budget))
    assert budget.failed == []
    assert [(row.what, row.form) for row in rows] == [
        (what, form) for what in case.passes for form in case.forms_of(what)
    ]
    for row in rows:
        assert len(row.cells()) == len(operators.COLUMNS)
        assert row.ms > 0 < row.rival_ms


@pytest.mark.parametrize("K", [7, 13])
def test_depthwise(K, limits):
    case = cases.depthwise_case("depthwise", "", (1, 4, 9, 11), K, torch.float32)
    assert (cases.OURS_LAST in case.forms) == (K == 7)
    checked(case, limits)


def test_the_authors_algorithm():
    tensors = torch.randn(1, 4, 3, 5), torch.randn(1, 2, 9, 3, 5)
    assert_matches_reference(published, small_kernel_aggregation_reference, tensors)


@pytest.mark.slow
def test_aggregation(limits):
    case = small(next(cases.aggregation()))
    assert cases.PUBLISHED in case.forms
    checked(case, limits)


@pytest.mark.slow  # the interpreter takes its time for 47 x 47 taps
def test_peripheral(limits):
    checked(small(list(cases.peripheral())[2]), limits)


@pytest.mark.parametrize("index", [0, 5])  # groups of 8 and of 16 channels
def test_deformable(index, limits):
    checked(small(list(cases.deformable())[index]), limits)


@pytest.mark.slow  # which looks through all networks
def test_deformable_shapes_are_the_networks():
    shapes = {("UniConvNet-T", (128, *shape), shape[2] // layer.groups)
              for _, layer, shape in unique(DCNv3)}  # fmt: skip
    found = {(case.where, case.shape, int(case.kernel.rpartition(" ")[2]))
             for case in cases.deformable()}  # fmt: skip
    assert found >= shapes


def test_a_wrong_result_is_not_timed(limits):
    case = cases.depthwise_case("depthwise", "", (1, 4, 9, 11), 13, torch.float32)
    wrong = cases.Form(lambda x, weight: case.forms[cases.TORCH].call(x, weight) + 1)
    case = replace(case, forms=case.forms | {cases.OURS: wrong})
    budget = Budget(60)
    rows = list(operators.measure([case], limits, "cpu", budget))
    assert {row.what for row in rows} == {cases.BY_INPUT, cases.BY_WEIGHT}  # the rest goes on
    (sentence,) = budget.failed
    assert "depthwise 1x4x9x11 K=13 float32, forward: seewide deviates by" in sentence


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


def imagined():
    """Rows of everything that is planned, each form faster than the one before: ours last."""
    limits = Limits(1e12, dict.fromkeys((torch.float32, torch.bfloat16, torch.float16), 1e12))
    ops = []
    for case in WHOLE.cases(None):
        for what in case.passes:
            for index, name in enumerate(reversed(case.forms_of(what))):
                ms = 1e-3 if name == cases.OURS else 10.0 - index
                ops.append(operators.Row(case, what, name, ms, 5.0, 1 / limits.bytes, 0.5))
    nets = []
    for name, what, *_ in networks.plan():
        if what != cases.COMPILED:
            form = networks.SEEWIDE if name in networks.OURS else networks.TIMM
            nets.append(networks.Row(name, what, form, 128, 10.0, 5))
            nets.append(networks.Row(name, what, networks.STOCK, 128, 30.0, 9))
    return ops, nets


# The list that the kernels answer to: what `make bench-gpu` must have a figure for.
WANTED = [
    r"depthwise forward: at least 1.0 times",
    *(rf"depthwise 64x384x32x32 K=31 {dtype}, {what}: at least {least}"
      for dtype, least in (("bfloat16", 25.0), ("float32", 12.0))
      for what in ("forward", "input gradient")),
    *(rf"depthwise 64x384x32x32 K=31 {dtype}, weight gradient: at least 50.0"
      for dtype in ("bfloat16", "float32")),
    *(rf"aggregation 256x128x28x28 3 {dtype}, {what}: at least {least} times the authors'"
      for dtype, least in (("float16", 2.5), ("bfloat16", 4.0))
      for what in ("forward", "all gradients")),
    *("dcnv3, forward: at least 2.5", "dcnv3, all gradients: at least 3.0"),
    *("pelk_t: at least 1.5 times slak_t", "pelk101_t: at least 0.94 times pelk_t"),
    "unireplknet_t: at least 1.0 times convnext_tiny",
    *(f"lsnet_t: at least 1.0 times {rival}" for rival in ("repvit_m0_9", "fastvit_t8")),
    *("unireplknet_t: a training step twice", "unireplknet_t: training in no more memory"),
]  # fmt: skip


def test_every_aim_is_measured():
    found = [what for what, _, _ in aims.judge(*imagined())]
    for wanted in WANTED:
        assert any(what.startswith(wanted) for what in found), wanted
    timed = {(case.shape, int(case.kernel[2:])) for case in cases.depthwise()}
    assert timed >= set(aims.EXPECTED)
    assert sum("ms or less" in what for what in found) == 2 * len(aims.EXPECTED)
    on_the_curve = {case.kernel for case in WHOLE.cases(None) if case.where == "Table 1"}
    assert on_the_curve == {f"K={K}" for K in (3, 5, 7, 9, 13, 17, 21, 27, 31)}


def test_it_should_take_less_than_ten_minutes():
    parts = estimate.parts()
    assert sum(seconds for _, _, seconds in parts) < BUDGET < 600
    assert {name for name, _, _ in parts} >= {"depthwise", "networks", "table 1"}


def test_page(tmp_path):
    ops, nets = imagined()
    ops = [row for row in ops if row.case.shape[2:] == (32, 32)]  # a panel for each dtype
    found = [(what, figure, "yes") for what, figure, _ in aims.judge(ops, nets)]
    budget = Budget(1, left_out=["one thing"], failed=["another: why"])
    picture = tmp_path / "figures" / "curve.png"
    written = page.write_page(
        {"gpu": "none"}, ops, nets, found, budget, tmp_path / "page.md", picture
    )
    text = written.read_text()
    assert "- gpu: none" in text
    assert "](figures/curve.png)" in text
    assert picture.stat().st_size > 10_000
    for row in (found[0], ops[0].cells(), nets[0].cells()):
        assert "| " + " | ".join(map(str, row)) + " |" in text
    assert "- another: why" in text


def test_aims():
    case = cases.depthwise_case("depthwise", "Table 1", (64, 384, 32, 32), 31, torch.bfloat16)
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


def test_the_whole_run(monkeypatch, tmp_path):
    """All but the compiling beforehand, on small cases of the CPU: one of three is wrong."""
    good = cases.depthwise_case("depthwise", "", (1, 4, 9, 11), 13, torch.float32, ("forward",))
    wrong = cases.Form(lambda x, weight: 2 * x)
    few = [good, replace(good, forms=good.forms | {cases.OURS: wrong})]
    curve = [replace(good, section="table 1", kernel="K=5")]
    monkeypatch.setattr(gpu, "SECTIONS", {"depthwise": lambda: few, "table 1": lambda: curve})
    monkeypatch.setattr(gpu, "WHOLE", Part(("depthwise", "table 1"), ()))
    monkeypatch.setattr(gpu, "_fill_caches", lambda part, budget: None)
    monkeypatch.setattr(gpu.Limits, "measure", lambda device: Limits(1e9, {torch.float32: 1e9}))
    monkeypatch.setattr(conditions, "RESULTS", tmp_path)
    monkeypatch.setattr(gpu, "write_page", partial(page.write_page, path=tmp_path / "page.md",
                                                   picture=tmp_path / "curve.png"))  # fmt: skip
    console = make_console()
    with console.capture() as shown:
        assert not gpu.run(console, conditions.Settings(), gpu.WHOLE, Budget(60))
    assert "failed: depthwise 1x4x9x11 K=13 float32, forward: seewide deviates by" in shown.get()
    found = {path.name.partition("-cpu")[0] for path in tmp_path.iterdir()}
    assert found == {"gpu-operators", "gpu-networks", "gpu-aims", "page.md"}
    (operators_file,) = tmp_path.glob("gpu-operators*")
    rows = conditions.read_csv(operators_file)
    assert [(row["kernel"], row["form"]) for row in rows] == [
        (case.kernel, form) for case in (good, *curve) for form in case.forms_of("forward")
    ]


def test_without_time_the_rest_is_named(limits):
    budget = Budget(0)
    case = cases.depthwise_case("depthwise", "", (1, 4, 9, 11), 13, torch.float32)
    assert list(operators.measure([case], limits, "cpu", budget)) == []
    assert budget.left_out[0] == "depthwise 1x4x9x11 K=13 float32, forward"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    result = CliRunner().invoke(app)
    assert result.exit_code == 2
    assert result.output == "device is 'cuda', and PyTorch finds no CUDA device here\n"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.parametrize("kind", ["ops", "models"])
def test_bench_on_cuda_without_a_gpu(kind, capsys):
    assert main([kind, "--device", "cuda"]) == 2
    assert "device is 'cuda', and PyTorch finds no CUDA device here" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "names", "sections", "measured"),
    [
        ("ops", ["dcnv3"], {"dcnv3"}, set()),
        ("ops", [], {"depthwise", "table 1", "aggregation", "dcnv3", "peripheral"}, set()),
        ("models", ["lsnet_t"], set(), {"lsnet_t"}),
        ("models", [], set(), {*networks.OURS, *networks.RIVALS, *networks.TRAINED}),
    ],
)
def test_bench_on_cuda_measures_a_part(kind, names, sections, measured):
    """`python -m benchmarks ops dcnv3 --device cuda`, up to where a GPU is needed."""
    part = Part.of(kind, names)
    assert {case.section for case in part.cases(None)} == sections
    assert {name for name, *_ in part.networks()} == measured


def test_bench_on_cuda_refuses_unknown_names():
    with pytest.raises(InputError, match=r"dcn4.*dcnv3"):
        Part.of("ops", ["dcn4"])
    with pytest.raises(InputError, match="lsnet_q"):
        Part.of("models", ["lsnet_q"])


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
