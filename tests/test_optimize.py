"""seewide.optimize: the same outputs, on our networks and timm's, and the promises it makes."""

import copy
import io

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

import seewide
from seewide.errors import InputError
from seewide.inference import choices, optimize
from seewide.kernels.cpu import pointwise
from seewide.numerics import assert_close
from seewide.testing import randomize

SMALL = {"depths": (1, 1, 2, 1), "dims": (16, 32, 48, 64)}
OURS = {
    "unireplknet_a": SMALL,
    "lsnet_t": {"depths": (0, 1, 2, 2), "dims": (16, 32, 48, 64), "img_size": 96},
    "uniconvnet_a": {"depths": (1, 1, 1, 1), "dims": (16, 32, 48, 64)},
    "pelk_t_dense": SMALL,
    "slak_t": SMALL,
    "replknet_31b": {"depths": (1, 1, 1, 1), "dims": (16, 32, 48, 64)},
}
TIMM = {
    "convnext_atto": {"depths": (1, 1, 2, 1)},
    "mobilenetv3_small_050": {},
    "repvit_m0_9": {},
    "fastvit_t8": {},
    "vit_tiny_patch16_224": {"depth": 2, "img_size": 96, "dynamic_img_size": True},
}


def build(name):
    options = (OURS | TIMM)[name]
    model = timm.create_model(name, num_classes=10, **options).eval()
    if name == "repvit_m0_9":  # which with random statistics magnifies rounding a thousand times
        return model
    return randomize(model)


@pytest.fixture(autouse=True)
def one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


QUICK = {"unireplknet_a", "lsnet_t", "convnext_atto", "mobilenetv3_small_050"}


@pytest.mark.parametrize(
    "name",
    [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in (*OURS, *TIMM)],
)
def test_outputs_are_the_models_at_any_size_and_batch(name):
    model = build(name)
    before = copy.deepcopy(model.state_dict())
    fast = seewide.optimize(model, torch.randn(1, 3, 96, 96))
    for shape in [(1, 3, 96, 96), (3, 3, 96, 96), (2, 3, 128, 96)]:
        x = torch.randn(shape)
        with torch.no_grad():
            # Ten times one operator's rounding: these are up to sixty layers deep.
            assert_close(fast(x), model(x), factor=10)
            assert_close(fast(x.contiguous(memory_format=torch.channels_last)), model(x), factor=10)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_report_says_what_was_changed_and_gained():
    report = seewide.optimize(build("mobilenetv3_small_050"), torch.randn(1, 3, 96, 96)).report
    text = str(report)
    assert "batch norms folded" in text
    assert "activations fused" in text
    assert f"({report.speedup:.2f} times)" in text
    assert report.deviation < 1e-5


def test_packed_weights_replace_the_plain_ones():
    model = timm.create_model("convnext_atto").eval()
    fast = seewide.optimize(model, torch.randn(1, 3, 96, 96))
    before, after = fast.report.megabytes
    assert after <= 1.1 * before
    fast(torch.randn(2, 3, 64, 64))
    assert fast._constants.bytes() <= 1.1e6 * before


def test_training_gradients_and_saving_are_refused():
    model = build("convnext_atto")
    with pytest.raises(InputError, match=r"training mode; model.eval\(\)"):
        seewide.optimize(copy.deepcopy(model).train())
    fast = seewide.optimize(model, torch.randn(1, 3, 64, 64))
    with pytest.raises(InputError, match="cannot be trained"):
        fast.train()
    with pytest.raises(InputError, match="no gradients"):
        fast(torch.randn(1, 3, 64, 64, requires_grad=True))
    with pytest.raises(InputError, match="cannot be saved"):
        torch.save(fast, io.BytesIO())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"dtype": torch.int8}, "does not quantize"),
        ({"dtype": torch.float16}, "got torch.float16"),
        ({"runtime": "tensorrt"}, "unknown runtime 'tensorrt'"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(InputError, match=message):
        seewide.optimize(build("convnext_atto"), torch.randn(1, 3, 64, 64), **options)


def test_a_model_that_names_no_input_size_needs_an_example():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    with pytest.raises(InputError, match="does not say what input it takes"):
        seewide.optimize(model)
    x = torch.randn(1, 3, 8, 8)
    assert_close(seewide.optimize(model, x)(x), model(x))


def test_bfloat16(monkeypatch):
    model, x = build("convnext_atto"), torch.randn(1, 3, 64, 64)
    monkeypatch.setattr(optimize, "has_bfloat16", lambda: False)
    with pytest.raises(InputError, match="no instructions for bfloat16"):
        seewide.optimize(model, x, dtype=torch.bfloat16)
    monkeypatch.setattr(optimize, "has_bfloat16", lambda: True)
    monkeypatch.setattr(pointwise, "has_operator", lambda: False)  # which this CPU may not have
    fast = seewide.optimize(model, x, dtype=torch.bfloat16)
    y = fast(x)
    assert y.dtype == torch.float32
    with torch.no_grad():
        assert (y - model(x)).abs().max() < 0.1 * model(x).abs().max()


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_other_runtimes_have_the_same_interface(runtime):
    pytest.importorskip("onnxscript")
    pytest.importorskip(runtime)
    model, x = build("convnext_atto"), torch.randn(1, 3, 64, 64)
    fast = seewide.optimize(model, x, runtime=runtime)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert_close(fast(x), model(x), factor=10)
    assert runtime in str(fast.report)
    with pytest.raises(InputError, match="exported for inputs"):
        fast(torch.randn(2, 3, 64, 64))


class Layers(nn.Module):
    """Patterns that must not be folded: a scale along another axis, a result that is used twice."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.rows = nn.Parameter(torch.randn(4, 1))
        self.gamma = nn.Parameter(torch.randn(4))
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.first = nn.BatchNorm2d(3)

    def forward(self, x):
        y = self.conv(self.first(x))
        z = self.norm(y) + F.relu(y)  # y is used twice
        z = z[:, :, :4, :4]
        rows = self.linear(z) * self.rows
        twice = self.linear(rows)
        return twice * self.gamma + twice + F.gelu(rows, approximate="tanh")


def test_folds_only_where_the_result_stays_the_same():
    model, x = randomize(Layers()).eval(), torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert_close(seewide.optimize(model, x)(x), model(x), factor=3)


PRODUCTS = [(1, 8, 5), (49, 40, 160), (196, 17, 33)]


@pytest.mark.parametrize("shape", PRODUCTS)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("bias", [True, False])
def test_all_ways_to_compute_a_product_agree(shape, activation, bias):
    rows, c_in, c_out = shape
    x, weight = torch.randn(rows, c_in), torch.randn(c_out, c_in)
    b = torch.randn(c_out) if bias else None
    wide = F.linear(x.double(), weight.double(), None if b is None else b.double())
    want = pointwise.apply_activation(wide, activation)
    for way in choices.product_ways(x, weight):
        laid_out = choices.LAYOUTS[way.layout](weight, tuple(x.shape))
        assert_close(way.run(x, laid_out, b, activation), want, way.layout)


CONVOLUTIONS = [  # C_in, C_out, kernel, stride, padding, dilation, groups
    (3, 8, 3, 2, 1, 1, 1),
    (8, 8, 13, 1, 6, 1, 8),
    (8, 8, 5, 1, 2, 1, 8),
    (6, 4, 1, 1, 0, 1, 1),
    (8, 8, 3, 1, 2, 2, 8),
    (4, 8, 2, 2, 0, 1, 2),
]


@pytest.mark.parametrize("sizes", CONVOLUTIONS)
@pytest.mark.parametrize("activation", ["none", "relu", "gelu"])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_all_ways_to_compute_a_convolution_agree(sizes, activation, layout):
    c_in, c_out, k, stride, padding, dilation, groups = sizes
    x = torch.randn(2, c_in, 19, 17).contiguous(memory_format=layout)
    weight, bias = torch.randn(c_out, c_in // groups, k, k), torch.randn(c_out)
    rest = ([stride] * 2, [padding] * 2, [dilation] * 2, groups)
    wide = F.conv2d(x.double(), weight.double(), bias.double(), *rest)
    want = pointwise.apply_activation(wide, activation)
    for way in choices.convolution_ways(x, weight, *rest):
        laid_out = choices.LAYOUTS[way.layout](weight, tuple(x.shape), *rest)
        got = way.run(x, laid_out, bias, activation, *rest)
        assert_close(got, want, way.layout)
        assert got.is_contiguous(memory_format=layout), way.layout
