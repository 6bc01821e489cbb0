"""The operators with their Triton kernels under compilation and autocast, and whole networks."""

import pytest
import timm
import torch

import seewide
from seewide.kernels import triton as door
from seewide.ops import (
    dcnv3,
    dcnv3_reference,
    depthwise_conv2d,
    depthwise_conv2d_reference,
    peripheral_conv2d,
    peripheral_conv2d_reference,
    small_kernel_aggregation,
    small_kernel_aggregation_reference,
    use_backend,
)
from seewide.testing import assert_equal, deviation, randomize

# Operator, definition, shapes of its tensors, what follows them.
CALLS = {
    "depthwise_conv2d": (
        depthwise_conv2d, depthwise_conv2d_reference, [(1, 2, 4, 5), (2, 1, 5, 5)], (),
    ),
    "small_kernel_aggregation": (
        small_kernel_aggregation, small_kernel_aggregation_reference,
        [(1, 4, 2, 3), (1, 2, 9, 2, 3)], (),
    ),
    "peripheral_conv2d": (
        peripheral_conv2d, peripheral_conv2d_reference, [(1, 1, 4, 5), (1, 3, 3)], ([2, 1, 2],),
    ),
    "dcnv3": (dcnv3, dcnv3_reference, [(1, 3, 4, 8), (1, 3, 4, 18), (1, 3, 4, 9)], ()),
}  # fmt: skip
NETWORKS = ["unireplknet_a", "lsnet_t", "uniconvnet_a", "pelk_t", "slak_t", "replknet_31b"]


@pytest.fixture
def asked(monkeypatch, device):
    """The kernels are asked for, and in the interpreter the door lets tensors of the CPU in."""
    torch.use_deterministic_algorithms(False)  # for the gradient of dcnv3's map
    if device == "cpu":
        monkeypatch.setattr(door, "why_not", lambda x: None)
    with use_backend("triton"):
        yield


def drawn(shapes, device):
    return [torch.randn(shape, device=device) / len(shape) for shape in shapes]


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("name", CALLS)
def test_compile_without_graph_break(name, device):
    op, reference, shapes, rest = CALLS[name]
    tensors = [t.requires_grad_() for t in drawn(shapes, device)]
    compiled = torch.compile(lambda *t: op(*t, *rest).sin(), fullgraph=True, backend="aot_eager")
    y = compiled(*tensors)
    wide = [t.detach().double().requires_grad_() for t in tensors]
    want = reference(*wide, *rest).sin()
    assert_equal(y, want)
    gradients = torch.autograd.grad(y.sum(), tensors)
    for got, expected in zip(gradients, torch.autograd.grad(want.sum(), wide), strict=True):
        assert_equal(got, expected)


@pytest.mark.usefixtures("asked")
@pytest.mark.parametrize("name", ["depthwise_conv2d", "dcnv3"])
def test_autocast_casts_as_a_convolution_does(name, device):
    op, reference, shapes, rest = CALLS[name]
    tensors = [t.requires_grad_() for t in drawn(shapes, device)]
    with torch.autocast(device, dtype=torch.float16):  # the interpreter has no bfloat16
        y = op(*tensors, *rest)
    assert y.dtype == torch.float16
    rounded = [t.detach().half().double() for t in tensors]
    assert_equal(y, reference(*rounded, *rest))
    y.float().sum().backward()
    assert all(t.grad.dtype == torch.float32 for t in tensors)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("merged", [False, True], ids=["training form", "merged"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree_with_float64(name, merged, dtype):
    """As near to float64 on the CPU as stock kernels come, or within twice that."""
    model = randomize(timm.create_model(name)).eval()
    model = seewide.fuse(model) if merged else model
    x = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        want = model.double()(x.double())
        model, x = model.to("cuda", dtype), x.to("cuda", dtype)
        found = {}
        for backend in ("torch", "triton"):
            with use_backend(backend):
                found[backend] = deviation(model(x).cpu(), want)
    assert found["triton"] <= 2 * found["torch"] + 1e-5, found


@pytest.mark.gpu
@pytest.mark.parametrize("name", NETWORKS[:4])
def test_networks_train(name):
    """Gradients of all parameters, under autocast to bfloat16, as with stock kernels."""
    torch.use_deterministic_algorithms(False)
    model = randomize(timm.create_model(name)).cuda().eval()  # no drop path
    x, gradients = torch.randn(2, 3, 96, 128, device="cuda"), {}
    for backend in ("torch", "triton"):
        model.zero_grad()
        with use_backend(backend), torch.autocast("cuda", dtype=torch.bfloat16):
            loss = model(x).float().square().mean()
        with use_backend(backend):
            loss.backward()
        gradients[backend] = torch.cat([p.grad.flatten() for p in model.parameters()])
    difference = (gradients["triton"] - gradients["torch"]).norm() / gradients["torch"].norm()
    assert difference < 0.05
