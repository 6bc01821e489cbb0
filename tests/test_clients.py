"""The smallest network of each family in what other programs do with it: backends, traces,
exporters, compilation, and torch.func. Random statistics, training and fused models."""

import io
import subprocess
import sys
import warnings

import pytest
import timm
import torch

import seewide
from seewide.numerics import NETWORK, assert_close, deviation
from seewide.testing import randomize

ONE_BLOCK = {"num_classes": 7, "depths": (1, 1, 1, 1)}
SMALLEST = {
    "unireplknet_a": {"dims": (8, 16, 24, 32)},
    "lsnet_t": {"dims": (16, 24, 32, 48)},
    "uniconvnet_a": {"dims": (16, 32, 32, 48)},
    "pelk_t": {"dims": (16, 16, 24, 24)},
    "replknet_31b": {"dims": (8, 16, 24, 32), "kernel_sizes": (13, 11, 9, 7)},
    "slak_t": {"dims": (16, 16, 24, 24)},
}
LIMIT = 1e-5  # of logits in float32; the backends of all operators together deviate by 3e-7


def make_model(name, fused=False):
    model = randomize(timm.create_model(name, **ONE_BLOCK, **SMALLEST[name])).eval()
    return seewide.fuse(model) if fused else model


@pytest.fixture(params=[False, True], ids=["training", "fused"])
def fused(request):
    return request.param


@pytest.fixture(params=SMALLEST)
def name(request):
    return request.param


@pytest.fixture
def model(name, fused):
    return make_model(name, fused)


@pytest.fixture
def images():
    """Two batches of different sizes."""
    return [torch.randn(2, 3, 64, 64), torch.randn(3, 3, 96, 64)]


def results(model, x, backend):
    """Logits and the gradients of all parameters and of the images."""
    x = x.clone().requires_grad_()
    with seewide.use_backend(backend):
        y = model(x)
        inputs = [x, *(p for p in model.parameters())]
        return y, *torch.autograd.grad(y.square().sum(), inputs, allow_unused=True)


def test_all_backends_run_forward_and_backward(model, images):
    want = results(model, images[0], None)
    for backend in ("cpu", "torch", "reference"):
        got = results(model, images[0], backend)
        assert_close(got[0], want[0], f"logits of {backend}")
        for index, (g, w) in enumerate(zip(got[1:], want[1:], strict=True)):
            assert (g is None) == (w is None)
            if w is not None and w.abs().max() > 1e-6:
                assert deviation(g, w) < NETWORK[torch.float32], f"gradient {index} of {backend}"


PROGRAM = """
import sys, torch
for module in list(sys.modules):
    assert not module.startswith(("seewide", "timm")), module
loaded, images = torch.jit.load(sys.argv[1]), torch.load(sys.argv[2])
with torch.no_grad():
    torch.save([loaded(x) for x in images], sys.argv[3])
"""


def test_traces_run_where_seewide_is_absent(model, images, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated")
        traced = torch.jit.trace(model, (images[0],))  # runs twice and compares
        torch.jit.save(traced, tmp_path / "model.pt")
    torch.save(images, tmp_path / "images.pt")
    files = [str(tmp_path / file) for file in ("model.pt", "images.pt", "logits.pt")]
    command = [sys.executable, "-W", "ignore", "-c", PROGRAM, *files]
    subprocess.run(command, check=True, cwd=tmp_path, env={"OMP_NUM_THREADS": "1"})
    with torch.no_grad():
        for got, x in zip(torch.load(tmp_path / "logits.pt"), images, strict=True):
            assert deviation(got, model(x)) < LIMIT


def test_torchscript_onnx_exporter(model, images):
    """PyTorch's default exporter until 2.8, and that of timm's script since."""
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnx")
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model, (images[0],), file, dynamo=False, opset_version=17, input_names=["x"],
            dynamic_axes={"x": {0: "n", 2: "h", 3: "w"}},
        )  # fmt: skip
    session = runtime.InferenceSession(file.getvalue())
    with torch.no_grad():
        for x in images:
            (got,) = session.run(None, {"x": x.numpy()})
            assert deviation(torch.from_numpy(got), model(x)) < LIMIT


@pytest.mark.slow  # minutes for all networks
def test_compiles_without_graph_break_at_two_sizes(model, images):
    check_compiled(model, images, training=False, dynamic=False)


@pytest.mark.slow  # 15 to 50 s per network
def test_compiles_for_training_at_two_sizes(model, images):
    check_compiled(model, images, training=True, dynamic=False)


@pytest.mark.slow  # symbolic sizes take PyTorch a minute per network
@pytest.mark.parametrize("training", [False, True], ids=["inference", "gradients"])
def test_compiles_with_free_sizes(model, images, training):
    check_compiled(model, images, training, dynamic=True)


def check_compiled(model, images, training, dynamic):
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for x in images:
        if training:
            for got, want in zip(results(compiled, x, None), results(model, x, None), strict=True):
                assert got is None or deviation(got, want) < 1e-4
        else:
            with torch.no_grad():
                assert deviation(compiled(x), model(x)) < LIMIT


def test_func_grad_equals_backward(model, images):
    parameters = {key: p.detach() for key, p in model.named_parameters()}

    def loss(parameters):
        return torch.func.functional_call(model, parameters, (images[0],)).square().sum()

    got = torch.func.grad(loss)(parameters)
    want = results(model, images[0], None)[2:]
    for (key, g), w in zip(got.items(), want, strict=True):
        if w is None or w.abs().max() < 1e-6:
            assert g.abs().max() < 1e-5, key
        else:
            assert deviation(g, w) < NETWORK[torch.float32], key


@pytest.mark.filterwarnings("ignore:There is a performance drop")  # vmap of PyTorch's pooling
def test_vmap_equals_a_batch(model, images):
    with torch.no_grad():
        got = torch.func.vmap(lambda x: model(x[None])[0])(images[0])
        assert deviation(got, model(images[0])) < LIMIT


def test_forward_mode_equals_backward(model, images):
    tangent = torch.randn_like(images[0])
    _, got = torch.func.jvp(model, (images[0],), (tangent,))
    x = images[0].clone().requires_grad_()
    y = model(x)
    want = [
        [(torch.autograd.grad(y[n, k], x, retain_graph=True)[0] * tangent).sum() for k in range(7)]
        for n in range(2)
    ]
    assert deviation(got, torch.tensor(want)) < NETWORK[torch.float32]


def test_double_backward_equals_the_reference(model, images):
    """The gradient of a gradient penalty, in float64."""
    model = model.double()

    def penalty(backend):
        x = images[0].double().requires_grad_()
        with seewide.use_backend(backend):
            (dx,) = torch.autograd.grad(model(x).square().sum(), x, create_graph=True)
            return torch.autograd.grad(dx.square().sum(), x)[0]

    assert_close(penalty(None), penalty("reference"), "second derivative", factor=100)
