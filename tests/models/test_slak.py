"""SLaK: results of the authors' code, fusing, graph capture."""

import pytest
import timm
import torch
from authors import check_layout, check_plain_parity
from family_checks import check_captured, check_features, check_fused, check_onnx

import seewide
from seewide.analysis.cost import count_cost
from seewide.layers import DepthwiseConv2d, StripPair, StripReparamBlock
from seewide.models.slak import SLaK
from seewide.testing import assert_equal, randomize

# Counted on the authors' file: width factor 1.3, no weights removed. Multiply-adds unfused
# at 224 x 224, where their counter adds norms, activations and biases.
PARAMETERS = {"t": 50_703_838, "s": 91_131_820, "b": 157_950_792}
MACS = {"t": 8_735_352_362, "s": 16_653_955_418, "b": 28_575_695_593}
AUTHORS_NAMES = {"t": "tiny", "s": "small", "b": "base"}


def small(**kwargs) -> SLaK:
    sizes = {"depths": (1, 1, 2, 1), "dims": (8, 8, 12, 16), "kernel_sizes": (51, 9, 7, 5)}
    return SLaK(**{**sizes, "num_classes": 7, **kwargs})


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters_and_multiply_adds(size):
    cost = count_cost(timm.create_model(f"slak_{size}", device="meta"))
    assert cost.parameters == PARAMETERS[size]
    assert cost.macs == pytest.approx(MACS[size], rel=0.01)


def test_stages_and_logits_equal_the_authors():
    check_plain_parity("slak.tiny", "slak_t")


@pytest.mark.parametrize("size", PARAMETERS)
def test_names_and_shapes_of_the_authors_files(size):
    check_layout("slak", AUTHORS_NAMES[size], f"slak_{size}")


def test_strips_are_one_cross_shaped_kernel():
    """Fused or not, a pulse spreads over a cross of width N and arm K."""
    block = randomize(StripReparamBlock(3, 13, 5).double()).eval()
    for branch in (block.vertical, block.horizontal, block.small):
        branch.norm.running_mean.zero_()
        torch.nn.init.zeros_(branch.norm.bias)
    pulse = torch.zeros(1, 3, 21, 21, dtype=torch.float64)
    pulse[:, :, 10, 10] = 1
    fused = block.fuse()
    assert isinstance(fused, StripPair)
    assert isinstance(fused.vertical, DepthwiseConv2d)
    assert_equal(fused(pulse), block(pulse))
    cross = torch.zeros(21, 21, dtype=torch.bool)
    cross[4:17, 8:13] = True
    cross[8:13, 4:17] = True
    assert torch.equal(fused(pulse)[0, 0] != 0, cross)


@pytest.mark.parametrize("decompose", [True, False])
def test_fused_equals_unfused(decompose):
    fused = check_fused(small(decompose=decompose))
    assert not [name for name, _ in fused.named_parameters() if "gamma" in name]


def test_scripted_compiled_exported_traced():
    check_captured(small(drop_path_rate=0.1))


@pytest.mark.slow
def test_onnx(tmp_path):
    check_onnx(small(), tmp_path)


def test_features():
    check_features("slak_t", (124, 249, 499, 998))


def test_bad_arguments_are_sentences():
    with pytest.raises(seewide.InputError, match="depths and dims need 4 entries each, got"):
        small(depths=(1, 1, 1))
    with pytest.raises(seewide.InputError, match="at least strip_width=7, got"):
        small(strip_width=7)
