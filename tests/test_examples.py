"""Every file of examples/ runs as a reader would run it; none goes without a line here."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
EXPECTED = {  # what the last lines must contain
    "fuse_and_export.py": ["fused", "difference of the outputs", "pt2", "safetensors"],
    "erf_of_any_timm_model.py": ["test_convnext: 20% of the scores within", "unireplknet_a:"],
    "gallery.py": ["7 x 7: loss", "aggregator of 7, 9, 11: loss", "fields-trained.png"],
    "look_inside.py": ["kernels.png", "positions.png", "lsnet.png", "rfa.png"],
    "operator_by_hand.py": ["(1, 64, 56, 56)", "depthwise_conv2d:", "chosen", "seewide"],
    "demo.py": [],
}


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, "-W", "error::UserWarning", EXAMPLES / name, *arguments],
        capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(EXAMPLES.parent)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_example_is_listed():
    assert sorted(EXPECTED) == sorted(path.name for path in EXAMPLES.glob("*.py"))


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_fits_on_a_page(path):
    assert len(path.read_text().splitlines()) < 60


@pytest.mark.parametrize("name", [name for name, words in EXPECTED.items() if words])
def test_examples_run_and_print_what_they_promise(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write figures
    output = run(name)
    for word in EXPECTED[name]:
        assert word in output


def test_the_receptive_fields_can_be_drawn(tmp_path):
    picture = tmp_path / "erf.png"
    run(
        "erf_of_any_timm_model.py",
        "test_convnext",
        "--images=1",
        "--side=64",
        f"--out={picture}",
    )
    assert picture.read_bytes().startswith(b"\x89PNG")


@pytest.mark.slow
def test_the_demo_writes_its_report(tmp_path):
    for module in ("sklearn", "onnx", "onnxruntime", "onnxscript"):
        pytest.importorskip(module)
    output = run("demo.py", "--smoke", "--out", tmp_path / "demo")
    assert "359 of 359" in output
    page = (tmp_path / "demo" / "report.html").read_text("utf-8")
    assert page.count("<img") == 5
    assert "http" not in page
