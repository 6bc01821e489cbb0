"""Each operator in traces, exporters, compiled code of several sizes and torch.func transforms."""

import io
import warnings

import pytest
import torch
from torch import nn

from seewide.numerics import assert_close
from seewide.ops import (
    dcnv3,
    depthwise_conv2d,
    global_response_norm,
    peripheral_conv2d,
    sharing_grid,
    small_kernel_aggregation,
    use_backend,
)


class Depthwise(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(8, 1, 13, 13) / 13)
        self.bias = nn.Parameter(torch.randn(8))

    def forward(self, x):
        return depthwise_conv2d(x, self.weight, self.bias)


class Peripheral(nn.Module):
    def __init__(self):
        super().__init__()
        self.grid = sharing_grid(31)
        self.weight = nn.Parameter(torch.randn(8, 11, 11) / 31)
        self.bias = nn.Parameter(torch.randn(8))
        self.pos_embed = nn.Parameter(torch.randn(8, 31, 31))

    def forward(self, x):
        return peripheral_conv2d(x, self.weight, self.grid, self.bias, self.pos_embed)


class Aggregation(nn.Module):
    def __init__(self):
        super().__init__()
        self.to_weight = nn.Conv2d(8, 4 * 9, 1)

    def forward(self, x):
        return small_kernel_aggregation(x, self.to_weight(x).unflatten(1, (4, 9)))


class Deformable(nn.Module):
    def __init__(self):
        super().__init__()
        self.offset, self.mask = nn.Conv2d(8, 36, 1), nn.Conv2d(8, 18, 1)

    def forward(self, x):
        # Permuted, so that offsets and masks are not contiguous.
        offset, mask = (layer(x).permute(0, 2, 3, 1) for layer in (self.offset, self.mask))
        return dcnv3(x.permute(0, 2, 3, 1), offset, mask, groups=2).permute(0, 3, 1, 2)


class ResponseNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(1, 1, 1, 8))
        self.bias = nn.Parameter(torch.randn(1, 1, 1, 8))

    def forward(self, x):
        y = global_response_norm(x.permute(0, 2, 3, 1), self.weight, self.bias, 1e-6)
        return y.permute(0, 3, 1, 2)


NETS = [Depthwise, Peripheral, Aggregation, Deformable, ResponseNorm]


@pytest.fixture(params=NETS, ids=lambda net: net.__name__)
def net(request):
    return request.param()


@pytest.fixture
def inputs():
    """Two batches of different sizes; the compiler, traces and exports see the first one first."""
    return [torch.randn(2, 8, 9, 12), torch.randn(3, 8, 14, 11)]


def test_traces_hold_no_sizes_and_run_without_python(net, inputs):
    """With parameters that require gradients, as users trace."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`torch.jit.*` is deprecated")
        traced = torch.jit.trace(net, (inputs[0],))  # runs twice and compares
        file = io.BytesIO()
        torch.jit.save(traced, file)
        file.seek(0)
        loaded = torch.jit.load(file)
    for x in inputs:
        assert_close(loaded(x), net(x))
    calls = [node.kind() for node in loaded.inlined_graph.nodes()]
    assert all(call.startswith(("aten::", "prim::")) for call in calls), calls


@pytest.mark.parametrize("dynamo", [False, True], ids=["torchscript", "dynamo"])
def test_onnx_files_are_right_at_two_sizes(net, inputs, dynamo):
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, file = net.eval(), io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if dynamo:
            auto = torch.export.Dim.DYNAMIC
            shapes = ({0: auto, 2: auto, 3: auto},)
            program = torch.onnx.export(
                net, (inputs[0],), dynamo=True, dynamic_shapes=shapes, verbose=False
            )
            program.save(file)
        else:
            axes = {"x": {0: "n", 2: "h", 3: "w"}}
            torch.onnx.export(
                net, (inputs[0],), file, dynamo=False, input_names=["x"], dynamic_axes=axes,
                opset_version=17,
            )  # fmt: skip
    session = runtime.InferenceSession(file.getvalue())
    for x in inputs:
        (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        assert_close(torch.from_numpy(y), net(x), factor=2)


@pytest.mark.parametrize("backend", [None, "cpu", "torch"])
@pytest.mark.parametrize("dynamic", [False, True], ids=["static", "dynamic"])
def test_compiles_without_graph_break_at_two_sizes(net, inputs, dynamic, backend):
    torch.compiler.reset()
    compiled = torch.compile(net, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    with use_backend(backend):
        for x in inputs:
            with torch.no_grad():
                assert_close(compiled(x), net(x))
            leaf = x.clone().requires_grad_()
            trained = (leaf, *net.parameters())
            got = torch.autograd.grad(compiled(leaf).square().sum(), trained)
            want = torch.autograd.grad(net(leaf).square().sum(), trained)
            for index, (g, w) in enumerate(zip(got, want, strict=True)):
                assert_close(g, w, f"gradient {index}", factor=10)


def test_compiles_with_only_the_bias_trainable(inputs):
    """As bitfit and linear probing do."""
    for net in (Depthwise(), Peripheral()):
        for name, parameter in net.named_parameters():
            parameter.requires_grad_(name == "bias")
        torch.compiler.reset()
        for backend in ("cpu", "torch"):
            with use_backend(backend):
                y = torch.compile(net, fullgraph=True, backend="aot_eager")(inputs[0])
                y.sum().backward()
            assert_close(net.bias.grad, torch.full((8,), y[:, 0].numel()).float())
            net.bias.grad = None


@pytest.mark.parametrize("training", [False, True])
def test_an_expanded_batch_reads_its_own_memory_only(training):
    """A stride of 0 over the batch; the images behind the first one in memory are others."""
    images = torch.randn(4, 8, 9, 12)
    x = images[:1].expand(4, -1, -1, -1).requires_grad_(training)
    for net in (Depthwise(), Peripheral()):
        for layout in (torch.contiguous_format, torch.channels_last):
            images = images.contiguous(memory_format=layout)
            x = images[:1].expand(4, -1, -1, -1).requires_grad_(training)
            assert_close(net(x), net(images[:1].repeat(4, 1, 1, 1)))
            torch.compiler.reset()
            compiled = torch.compile(net, fullgraph=True, backend="aot_eager")
            assert_close(compiled(x), net(images[:1].repeat(4, 1, 1, 1)))


def test_compiled_transforms(inputs):
    """torch.func inside torch.compile: the dispatch sees the transform."""
    net = Depthwise()

    def total(x):
        return net(x).square().sum()

    torch.compiler.reset()
    got = torch.compile(torch.func.grad(total), backend="aot_eager")(inputs[0])
    assert_close(got, torch.func.grad(total)(inputs[0]))


def test_forward_mode_without_a_transform(net, inputs):
    x, tangent = inputs[0], torch.randn_like(inputs[0])
    with torch.autograd.forward_ad.dual_level():
        dual = torch.autograd.forward_ad.make_dual(x, tangent)
        got = torch.autograd.forward_ad.unpack_dual(net(dual)).tangent
    _, want = torch.func.jvp(net, (x,), (tangent,))
    assert_close(got, want)


def test_per_sample_gradients(net, inputs):
    """vmap over grad with shared parameters, as differential privacy computes them."""
    parameters = {name: p.detach() for name, p in net.named_parameters()}

    def loss(parameters, x):
        return torch.func.functional_call(net, parameters, (x[None],)).square().sum()

    found = torch.func.vmap(torch.func.grad(loss), (None, 0))(parameters, inputs[0])
    for n in range(2):
        total = net(inputs[0][n : n + 1]).square().sum()
        want = torch.autograd.grad(total, list(net.parameters()))
        for (name, got), w in zip(found.items(), want, strict=True):
            assert_close(got[n], w, f"{name} of sample {n}", factor=10)
