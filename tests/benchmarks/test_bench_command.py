"""`seewide bench`: what it refuses, and how it says so."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from seewide.cli import app

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ("opps", "unknown benchmark 'opps'; did you mean ops?"),
        ("ops depthwize", "unknown operator 'depthwize'; did you mean depthwise?"),
        ("models lsnet_tt --quick", "unknown model 'lsnet_tt'; did you mean lsnet_t"),
        ("targets 7", "unknown aim '7'"),
        ("ops --dtype int8", "unknown dtype 'int8'"),
        ("ops --device tpu", "device must be cpu, or cuda where there is one, got 'tpu'"),
        ("sweep --base HEAD", "--base goes with ops or models, got 'sweep'"),
        ("ops grn --base no-such-thing", "no package in revision 'no-such-thing'"),
    ],
)
def test_refusals(arguments, sentence):
    result = CliRunner().invoke(app, ["bench", *arguments.split()])
    assert result.exit_code == 2
    assert sentence in " ".join(result.output.split())
    assert "Traceback" not in result.output


@pytest.mark.slow
def test_table():
    result = CliRunner().invoke(app, ["bench", "ops", "squeeze_excite", "--quick"])
    assert result.exit_code == 0, result.output
    assert "torch channels_last" in result.output
    assert "GFLOP/s" in result.output


def test_installed_without_the_checkout(tmp_path):
    """The wheel has no benchmarks."""
    shutil.copytree(ROOT / "seewide", tmp_path / "seewide")
    call = [sys.executable, "-m", "seewide", "bench", "ops"]
    found = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert found.returncode == 2
    assert "bench runs from a checkout of the project" in " ".join(found.stderr.split())
