"""Without a CUDA device the Triton kernels run in Triton's interpreter, on tensors of the CPU.

The switch is set in tests/conftest.py, before anything can import Triton.
"""

import importlib.util

import pytest
import torch

INTERPRETED = not torch.cuda.is_available()
TRITON = importlib.util.find_spec("triton") is not None

# PyTorch's packages for macOS and Windows bring no Triton
collect_ignore_glob = [] if TRITON else ["test_triton_*.py"]


@pytest.fixture
def device() -> str:
    """Where the kernels run: on the GPU, or interpreted."""
    return "cpu" if INTERPRETED else "cuda"
