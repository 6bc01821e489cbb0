"""UniConvNet: results of the authors' code, fusing, the ablations, graph capture."""

import itertools

import pytest
import timm
import torch
from authors import check_calm_parity, check_layout
from family_checks import check_captured, check_features, check_fused

import seewide
from seewide.layers import DCNv3, ReceptiveFieldAggregator
from seewide.models.uniconvnet import AGGREGATORS, LOCAL_MIXERS, UniConvNet
from seewide.testing import deviation, randomize

# Counted on the authors' files.
PARAMETERS = {
    "a": 3_406_732,
    "p0": 5_178_864,
    "p1": 6_093_960,
    "p2": 7_590_300,
    "n0": 10_253_506,
    "n1": 13_092_286,
    "n2": 15_036_745,
    "n3": 19_694_569,
    "t": 30_325_652,
    "s": 50_025_735,
    "b": 97_659_176,
    "l": 201_952_670,
    "xl": 226_703_870,
}


def small(**kwargs) -> UniConvNet:
    sizes = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "group_channels": 4}
    return UniConvNet(**{**sizes, "num_classes": 7, **kwargs})


def calm(model: UniConvNet) -> UniConvNet:
    """Random weights under which rounding stays rounding.

    Offsets and masks of unit variance, as `randomize` makes them, let a deformable network
    amplify an error of 1e-7 a hundredfold in each block.
    """
    randomize(model)
    for module in model.modules():
        if isinstance(module, DCNv3):
            with torch.no_grad():
                module.offset.weight.mul_(0.1)
                module.mask.weight.mul_(0.1)
    return model


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters(size):
    model = timm.create_model(f"uniconvnet_{size}", device="meta")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[size]
    scales = 3 * sum(block.gamma_mlp.numel() for stage in model.stages for block in stage.blocks)
    fused = seewide.fuse(model)
    assert sum(p.numel() for p in fused.parameters()) == PARAMETERS[size] - scales


@pytest.mark.parametrize("size", PARAMETERS)
def test_names_and_shapes_of_the_authors_files(size):
    check_layout("uniconvnet", size, f"uniconvnet_{size}")


@pytest.mark.parametrize("size", ["a", "n0", pytest.param("t", marks=pytest.mark.slow)])
def test_stages_and_logits_equal_the_authors(size):
    check_calm_parity(f"uniconvnet.{size}", f"uniconvnet_{size}", [0, 1, 2, 3])


# Table 9: the aggregator or what replaces it, with DCNv3 or what replaces it.
TABLE_9 = list(itertools.product(AGGREGATORS, LOCAL_MIXERS))


@pytest.mark.parametrize(("aggregator", "local_mixer"), TABLE_9)
def test_fused_equals_unfused(aggregator, local_mixer):
    model = small(aggregator=aggregator, local_mixer=local_mixer, kernel_sizes=(3, 5, 7, 9))
    fused = check_fused(model)
    assert not [name for name, _ in fused.named_parameters() if "gamma" in name]


def test_scripted_compiled_exported_traced():
    check_captured(calm(small(depths=(1, 1, 1, 1), drop_path_rate=0.1)))


def test_features():
    check_features("uniconvnet_a", (24, 48, 96, 192))
    check_features("uniconvnet_n0", (48, 96, 192, 384))


def test_a_new_network_starts_from_zero_offsets_and_masks():
    model = small()
    layers = [m for m in model.modules() if isinstance(m, DCNv3)]
    assert len(layers) == 5
    for layer in layers:
        assert not any(p.any() for p in (*layer.offset.parameters(), *layer.mask.parameters()))
        assert layer.input_proj.weight.std() > 0
    assert layers[0].groups == 2


@pytest.mark.parametrize("kernel_sizes", [(3, 5), (3, 5, 7), (5, 7, 9), (7, 9, 11, 13)])
def test_kernel_sizes_of_the_ablations(kernel_sizes):
    """Two to four layers; one response is exactly as wide as all their kernels in sequence."""
    layer = randomize(ReceptiveFieldAggregator(14, kernel_sizes)).double()
    assert sum(layer.parts) == 14
    x = torch.randn(1, 14, 53, 53, dtype=torch.float64, requires_grad=True)
    layer(x)[0, :, 26, 26].sum().backward()
    rows = x.grad[0].abs().sum((0, 2)).nonzero().flatten()
    reach = sum(size // 2 for size in kernel_sizes)
    assert (rows.min(), rows.max()) == (26 - reach, 26 + reach)


@pytest.mark.parametrize(("aggregator", "local_mixer"), TABLE_9)
def test_networks_of_table_9_train(aggregator, local_mixer):
    """Each is another network, through timm, and every parameter has a gradient."""
    options = {"depths": (1, 1, 1, 1), "num_classes": 3}
    mixers = {"aggregator": aggregator, "local_mixer": local_mixer}
    model = randomize(timm.create_model("uniconvnet_a", **options, **mixers))
    names = [name for name, _ in model.named_parameters()]
    assert any(".rfa.layers." in name for name in names) == (aggregator == "rfa")
    assert any(".rfa." in name for name in names) == (aggregator != "none")
    assert any(".dcn.offset." in name for name in names) == (local_mixer == "dcnv3")
    assert any(".dcn." in name for name in names) == (local_mixer != "none")
    model(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in model.parameters())
    assert torch.jit.script(model)


def test_internimage_form_of_the_layer():
    """Softmax, and norm and GELU before the offsets: equal masks average the nine points."""
    layer = DCNv3(8, group_channels=4, softmax=True, norm_act=True)
    x = torch.randn(2, 6, 7, 8)
    value = layer.input_proj(x).permute(0, 3, 1, 2)
    mean = torch.nn.functional.avg_pool2d(value, 3, 1, 1).permute(0, 2, 3, 1)
    assert deviation(layer(x), layer.output_proj(mean)) < 1e-5


def test_bad_arguments_are_sentences():
    with pytest.raises(seewide.InputError, match="depths and dims need 4 entries each, got"):
        small(depths=(1, 1, 1))
    with pytest.raises(seewide.InputError, match="got dim=8, group_channels=16"):
        small(group_channels=16)
    with pytest.raises(seewide.InputError, match=r"got kernel_sizes=\(7,\) and dim=8"):
        small(kernel_sizes=(7,))
    with pytest.raises(seewide.InputError, match="unknown aggregator 'rfb'; did you mean rfa"):
        small(aggregator="rfb")
    with pytest.raises(seewide.InputError, match="unknown local mixer 'dcnv4'; did you mean dcnv3"):
        small(local_mixer="dcnv4")
    with pytest.raises(seewide.InputError, match="kernel_size must be odd, got 8"):
        small(kernel_sizes=(7, 8, 9))
