"""Networks with the Triton kernels: small ones in the interpreter, full ones on a GPU."""

import numpy as np
import pytest
import timm
import torch
from authors import PARITY, calm_image, calm_weights, plain_image, plain_weights, with_weights

import seewide
from seewide.ops import use_backend
from seewide.testing import deviation, randomize

NETWORKS = ["unireplknet_a", "lsnet_t", "uniconvnet_a", "pelk_t", "slak_t", "replknet_31b"]
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
# Files of the authors' results (tests/models/parity), and the networks.
GOLDENS = [
    ("unireplknet.a", "unireplknet_a"),
    ("unireplknet.t", "unireplknet_t"),
    ("lsnet.t.calm", "lsnet_t"),
    ("lsnet.b.calm", "lsnet_b"),
    ("uniconvnet.a.calm", "uniconvnet_a"),
    ("uniconvnet.t.calm", "uniconvnet_t"),
    ("replknet.31b", "replknet_31b"),
    ("slak.tiny", "slak_t"),
]


# The families with a block or two per stage and few channels: the interpreter is slow.
SMALL = {
    "unireplknet_a": {"depths": (1, 1, 1, 1), "dims": (4, 4, 4, 4)},
    "lsnet_t": {"depths": (0, 1, 1, 1), "dims": (8, 8, 16, 16), "num_heads": 2},
    "uniconvnet_a": {"depths": (1, 1, 1, 1), "dims": (16, 16, 16, 16)},
}


@pytest.mark.slow
@pytest.mark.usefixtures("forced")
@pytest.mark.parametrize("name", SMALL)
def test_small_networks(name, device):
    """Fused, in float32, with every operator on its Triton kernel."""
    model = seewide.fuse(randomize(timm.create_model(name, **SMALL[name])).eval())
    x = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        got = model.to(device)(x.to(device)).cpu()
        with use_backend("reference"):
            want = model.cpu().double()(x.double())
    assert deviation(got, want) < 1e-4


def compared(model, x, want, dtype):
    """Distances of the logits from `want` by backend; ours may be twice torch's own."""
    model, x, found = model.to("cuda", dtype), x.to("cuda", dtype), {}
    with torch.inference_mode():
        for backend in ("torch", "triton"):
            with use_backend(backend):
                found[backend] = deviation(model(x).cpu(), want)
    assert found["triton"] <= 2 * found["torch"] + 1e-5, found
    return found["triton"]


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fused", [False, True], ids=["training", "fused"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_agree_with_float64(name, fused, dtype):
    """As near to float64 on the CPU as stock kernels come, or within twice that."""
    model = randomize(timm.create_model(name)).eval()
    model = seewide.fuse(model) if fused else model
    x = torch.randn(2, 3, 96, 128)
    with torch.inference_mode():
        want = model.double()(x.double())
    compared(model, x, want, dtype)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("fused", [False, True], ids=["training", "fused"])
@pytest.mark.parametrize(("file", "name"), GOLDENS)
def test_goldens(file, name, fused, dtype):
    """The authors' logits, for deterministic weights and a deterministic image."""
    calm = file.endswith(".calm")
    model = with_weights(name, calm_weights if calm else plain_weights)
    model = seewide.fuse(model) if fused else model
    want = torch.from_numpy(np.load(PARITY / f"{file}.npz")["logits"])
    found = compared(model, calm_image() if calm else plain_image(), want, dtype)
    assert found < {torch.float32: 5e-3}.get(dtype, 0.5)  # halves: the families' tests say why


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
