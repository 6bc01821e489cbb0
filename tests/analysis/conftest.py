"""What tests of the analyses share."""

from pathlib import Path

import pytest

SHARED = Path(__file__).resolve().parents[3] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """Real data beside the project, where a machine has it."""
    if not (SHARED / "data").is_dir():
        pytest.skip("this machine has no ../shared/data")
    return SHARED
