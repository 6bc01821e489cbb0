"""Result files hold what was measured, and figures are drawn from them."""

import pytest

from benchmarks import conditions, figures
from benchmarks.cases import STOCK, depthwise_case
from benchmarks.conditions import Settings, read_csv, write_csv
from benchmarks.ops import COLUMNS, FORWARD, measure

QUICK = Settings(quick=True)


@pytest.fixture(scope="module")
def rows():
    """Three kernel sizes on a small map."""
    cases = [depthwise_case("grid", (1, 4, 8, 8), K, K) for K in (3, 5, 7)]
    return [row for case in cases for row in measure(case, FORWARD, QUICK).rows(1e12)]


@pytest.fixture
def written(rows, tmp_path, monkeypatch):
    """Their result file."""
    monkeypatch.setattr(conditions, "RESULTS", tmp_path)
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    return write_csv("depthwise", COLUMNS, rows, QUICK)


def test_file(written):
    assert written.name.startswith("depthwise-cpu-torch")
    assert written.name.endswith("-float32.csv")
    assert written.read_text().startswith("# cpu: ")
    rows = read_csv(written)
    assert {row["kernel"] for row in rows} == {"3x3", "5x5", "7x7"}
    assert all(float(row["median ms"]) > 0 for row in rows)
    assert {row["times torch"] for row in rows if row["form"] == STOCK} == {"1.00"}


def test_figure(written):
    assert figures.draw_kernels(written).stat().st_size > 10_000


def test_no_figure_without_a_grid(written):
    lines = written.read_text().replace("grid", "some network")
    written.write_text(lines)
    assert figures.draw_kernels(written) is None


def test_arithmetic_passes_our_best():
    """Half the time per multiply-add at K=5: the line goes through that point."""
    lines = {"torch NCHW": [(3, 0.1)], "seewide": [(3, 4.0), (5, 5.0)]}
    K, ms = figures.arithmetic(lines, {3: 2.0, 5: 5.0})
    assert list(K) == [3, 5]
    assert list(ms) == [2.0, 5.0]


def test_sweep(tmp_path, monkeypatch):
    monkeypatch.setattr(figures, "FIGURES", tmp_path)
    lines = {"a": [(1, 10.0), (2, 18.0)], "b": [(1, 5.0), (2, 9.0)]}
    assert figures.draw_sweep("", "threads", lines, "sweep").name == "sweep.png"
