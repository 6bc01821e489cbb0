"""Fixtures of the modalities' tests."""

from pathlib import Path

import pytest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of small real data sets, if this machine has it."""
    if not DATA.is_dir():
        pytest.skip("the data sets are not on this machine (../shared/data)")
    return DATA
