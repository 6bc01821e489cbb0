"""What other libraries do with the networks: decoders, counters, tracing, export."""

import pytest
import timm
import torch
from test_contract import NAMES, build
from torch.utils.flop_counter import FlopCounterMode

from seewide.layers import BiasedAttention
from seewide.testing import deviation, randomize

SMALLEST = ["unireplknet_a", "lsnet_t", "uniconvnet_a", "pelk_t_dense", "slak_t", "replknet_31b"]


@pytest.mark.slow
@pytest.mark.parametrize("decoder", ["DeepLabV3", "DeepLabV3Plus", "PAN", "Unet"])
@pytest.mark.parametrize("name", SMALLEST)
def test_decoders_of_smp(name, decoder):
    """DeepLabV3 needs output stride 8, DeepLabV3+ and PAN 16."""
    smp = pytest.importorskip("segmentation_models_pytorch")
    kwargs = {"depths": (1, 1, 1, 1)}
    model = getattr(smp, decoder)(f"tu-{name}", encoder_weights=None, classes=2, **kwargs).eval()
    size = 128 if decoder == "PAN" else 64  # PAN pools its input three times
    with torch.no_grad():
        assert model(torch.randn(1, 3, size, size)).shape == (1, 2, size, size)


@pytest.mark.parametrize("grad", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_torch_counts_multiply_adds(name, grad):
    model = build(name).eval()
    with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(grad):
        model(torch.randn(1, 3, 64, 64))
    assert counter.get_total_flops() > 1e5


def attention() -> BiasedAttention:
    return randomize(BiasedAttention(32, 4, resolution=(4, 4))).eval()


def test_exported_attention_accepts_other_sizes():
    """The program is made at the size for which the biases are stored."""
    layer, x = attention(), torch.randn(1, 32, 4, 4)
    height, width = torch.export.Dim("height", max=64), torch.export.Dim("width", max=64)
    program = torch.export.export(layer, (x,), dynamic_shapes=({2: height, 3: width},)).module()
    with torch.no_grad():
        for size in ((4, 4), (7, 5), (3, 9)):
            x = torch.randn(1, 32, *size)
            assert deviation(program(x), layer(x)) < 1e-5, size


@pytest.mark.filterwarnings("ignore::FutureWarning")  # torch deprecates tracing
def test_traced_attention_accepts_other_sizes():
    layer = attention()
    with torch.no_grad():
        traced = torch.jit.trace(layer, torch.randn(1, 32, 4, 4))
        for size in ((4, 4), (7, 5), (3, 9)):
            x = torch.randn(1, 32, *size)
            assert deviation(traced(x), layer(x)) < 1e-5, size


def test_reductions_reach_feature_extractors():
    model = timm.create_model("slak_t", features_only=True, output_stride=8, device="meta")
    assert model.feature_info.reduction() == [4, 8, 8, 8]
