"""What the training tests share."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console
from tiny import SMALL, paint


@pytest.fixture
def images(tmp_path):
    return paint(tmp_path / "images")


@pytest.fixture
def quiet():
    return Console(quiet=True)


@pytest.fixture
def small():
    return SMALL


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Tensors this small only lose time to threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
