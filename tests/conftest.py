"""What all tests share."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Uninitialised memory is NaN: a kernel that reads what nobody wrote shows it."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of figures computed by the authors' own code, if this machine has it."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("the authors' figures are not on this machine (../shared/parity)")
    return folder
