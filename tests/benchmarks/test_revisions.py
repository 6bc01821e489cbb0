"""Each side of a comparison runs its own package."""

import subprocess
from pathlib import Path

import pytest

from benchmarks.conditions import Settings
from benchmarks.revisions import ROOT, package_of, side_of
from seewide.errors import InputError

QUICK = Settings(quick=True)


@pytest.fixture
def checkout():
    call = ["git", "rev-parse", "--verify", "HEAD"]
    if subprocess.run(call, cwd=ROOT, capture_output=True, check=False).returncode:
        pytest.skip("this is no git checkout")


@pytest.mark.slow
def test_sides(checkout):
    with (
        package_of("HEAD") as folder,
        side_of(folder, "models", ["lsnet_t"], QUICK) as there,
        side_of(ROOT, "models", ["lsnet_t"], QUICK) as here,
    ):
        assert Path(there.ask("package")).is_relative_to(folder)
        assert Path(here.ask("package")).is_relative_to(ROOT)
        assert there.ask("list") == here.ask("list") == [
            ["lsnet_t, batch 1", "merged"], ["lsnet_t, batch 8", "merged"],
        ]  # fmt: skip
        assert there.ask("time", 0, 1) > 0
    assert not folder.exists()


def test_a_side_that_dies_says_why():
    refused = pytest.raises(InputError, match="unknown operator 'nothing'")
    with side_of(ROOT, "ops", ["nothing"], QUICK) as side, refused:
        side.ask("list")


def test_unknown_revision(checkout):
    refused = pytest.raises(InputError, match="no package in revision 'no-such-thing'")
    with refused, package_of("no-such-thing"):
        pass
