"""Fixtures of the tests of seewide.analysis."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real data beside the repository; skips if there is none."""
    if not (SHARED / "data").is_dir():
        pytest.skip("this machine has no ../shared/data")
    return SHARED
