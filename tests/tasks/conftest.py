"""Fixtures of the tasks' tests."""

from pathlib import Path

import pytest
import torch

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of small real data sets, if this machine has it."""
    if not DATA.is_dir():
        pytest.skip("the data sets are not on this machine (../shared/data)")
    return DATA


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors this small only lose time to threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
