"""When the Triton kernels are chosen, and that they are not imported before."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from seewide.errors import InputError
from seewide.kernels import triton as kernels
from seewide.ops import (
    dcnv3,
    depthwise_conv2d,
    explain,
    peripheral_conv2d,
    sharing_grid,
    small_kernel_aggregation,
    use_backend,
)

# Each operator with arguments that its kernel takes; `make` is torch.empty on some device.
CALLS = {
    "depthwise_conv2d": lambda make: (
        depthwise_conv2d,
        (make(2, 8, 19, 23), make(8, 1, 31, 31), make(8)),
    ),
    "small_kernel_aggregation": lambda make: (
        small_kernel_aggregation,
        (make(2, 8, 9, 11), make(2, 4, 9, 9, 11)),
    ),
    "peripheral_conv2d": lambda make: (
        peripheral_conv2d,
        (make(1, 4, 28, 33), make(4, 13, 13), sharing_grid(51), make(4), make(4, 51, 51)),
    ),
    "dcnv3": lambda make: (
        dcnv3,
        (make(1, 9, 11, 16), make(1, 9, 11, 36), make(1, 9, 11, 18), 3, 2),
    ),
}


@pytest.fixture
def gpu(monkeypatch):
    """Tensors that say they are on a GPU, and hold nothing."""
    monkeypatch.setattr(kernels, "_cannot_on_gpu", lambda index: None)
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield lambda *shape, **kwargs: torch.empty(shape, device="cuda", **kwargs)


def test_a_machine_without_cuda_loads_no_kernel():
    program = """if True:
        import sys, torch, seewide
        from seewide.ops import *
        small_kernel_aggregation(torch.ones(1, 4, 5, 5), torch.ones(1, 2, 9, 5, 5))
        dcnv3(torch.ones(1, 5, 5, 8), torch.ones(1, 5, 5, 18), torch.ones(1, 5, 5, 9))
        depthwise_conv2d(torch.ones(1, 4, 9, 9), torch.ones(4, 1, 7, 7))
        peripheral_conv2d(torch.ones(1, 4, 9, 9), torch.ones(4, 5, 5), sharing_grid(13, 3)[1:-1])
        print(*(name for name in sys.modules if name.startswith("seewide.kernels.triton.")))
    """
    run = [sys.executable, "-c", program]
    loaded = subprocess.run(run, capture_output=True, text=True, check=True).stdout
    assert loaded.split() == []


def test_dcnv3_is_not_deterministic(gpu):
    x, offset, mask = (gpu(1, 5, 5, size, requires_grad=True) for size in (8, 18, 9))
    with use_backend("triton"), pytest.raises(InputError, match="dx is added up in no fixed order"):
        dcnv3(x, offset, mask)


@pytest.mark.parametrize("name", CALLS)
def test_kernels_run_on_a_gpu_only_when_forced(name, gpu, capsys):
    """Not by themselves: that waits for a measurement."""
    op, arguments = CALLS[name](gpu)
    explain(op, *arguments)
    shown = capsys.readouterr().out
    assert "triton     could run" in shown
    assert shown.count("only when forced, because no GPU has timed it yet") == 1
    with use_backend("triton"):
        explain(op, *arguments)
    assert "triton     chosen" in capsys.readouterr().out


@pytest.mark.parametrize("name", CALLS)
def test_shape_and_layout_are_those_of_the_input(name, gpu):
    op, (x, *rest) = CALLS[name](gpu)
    with use_backend("triton"):
        y = op(x, *rest)
    assert y.shape == x.shape
    assert y.stride() == x.stride()
    assert y.device.type == "cuda"


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (torch.empty, "the input is on cpu, this backend runs on cuda"),
        (lambda *shape: torch.empty(*shape, device="meta"), "the input is on meta"),
    ],
)
@pytest.mark.parametrize("name", CALLS)
def test_not_on_other_devices(name, make, sentence, capsys):
    op, arguments = CALLS[name](lambda *shape: make(*shape))
    explain(op, *arguments)
    assert sentence in capsys.readouterr().out


@pytest.mark.parametrize(("side", "dtype", "plan"), [
    (28, torch.float32, "cells"), (28, torch.bfloat16, "dense"), (56, torch.bfloat16, "cells"),
])  # fmt: skip
def test_peripheral_kernels_follow_the_grid_on_large_maps(side, dtype, plan, gpu, capsys):
    x, weight = gpu(1, 4, side, side, dtype=dtype), gpu(4, 13, 13, dtype=dtype)
    with use_backend("triton"):
        explain(peripheral_conv2d, x, weight, sharing_grid(51))
        assert peripheral_conv2d(x, weight, sharing_grid(51)).shape == x.shape
    assert f"triton     chosen: {plan}" in capsys.readouterr().out


def test_reasons_are_sentences(gpu, monkeypatch):
    assert "float64" in kernels.cannot(gpu(1, 1, 2, 2, dtype=torch.float64))
    assert "maps are empty" in kernels.cannot(gpu(2, 1, 0, 2))
    assert kernels.cannot(gpu(0, 1, 2, 2)) is None
    monkeypatch.setattr(kernels, "TRITON", False)
    assert "Triton is not installed" in kernels.cannot(gpu(1, 1, 2, 2))


def test_old_gpus_and_rocm(monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: (7, 5))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda index: "Tesla T4")
    reason = kernels._cannot_on_gpu.__wrapped__(0)
    assert reason == "the kernels need compute capability 8.0, Tesla T4 has 7.5"
    monkeypatch.setattr(torch.version, "hip", "6.2")
    assert "ROCm" in kernels._cannot_on_gpu.__wrapped__(0)
