"""Without a CUDA device the Triton kernels run in Triton's interpreter, on tensors of the CPU.

The switch is set in tests/conftest.py, before anything can import Triton.
"""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from seewide.kernels import triton as kernels
from seewide.ops import use_backend

sys.path.append(str(Path(__file__).parents[1] / "models"))  # family_checks, for the networks here

INTERPRETED = not torch.cuda.is_available()
TRITON = importlib.util.find_spec("triton") is not None

# PyTorch's packages for macOS and Windows bring no Triton
collect_ignore_glob = [] if TRITON else ["test_triton_*.py"]


@pytest.fixture
def device() -> str:
    """Where the kernels run: on the GPU, or interpreted."""
    return "cpu" if INTERPRETED else "cuda"


@pytest.fixture
def forced(monkeypatch, device):
    """Forces the kernels, in the interpreter also for tensors of the CPU."""
    torch.use_deterministic_algorithms(False)  # for the gradient of dcnv3's map
    if device == "cpu":
        monkeypatch.setattr(kernels, "cannot", lambda x: None)
    with use_backend("triton"):
        yield
