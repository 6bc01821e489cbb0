"""Without a CUDA device the Triton kernels run in Triton's interpreter, on tensors of the CPU.

Triton reads the switch while it is imported, and so do the kernels: nothing may import them before.
"""

import importlib.util
import os
import sys

import pytest
import torch

INTERPRETED = not torch.cuda.is_available()
TRITON = importlib.util.find_spec("triton") is not None
TOO_LATE = "triton" in sys.modules and os.environ.get("TRITON_INTERPRET") != "1"
if INTERPRETED and TRITON:
    os.environ["TRITON_INTERPRET"] = "1"

# PyTorch's packages for macOS and Windows bring no Triton
collect_ignore_glob = [] if TRITON else ["test_triton_*.py"]


@pytest.fixture
def device() -> str:
    """Where the kernels run: on the GPU, or interpreted."""
    assert not (INTERPRETED and TOO_LATE), "Triton was imported before its interpreter was chosen"
    return "cpu" if INTERPRETED else "cuda"
