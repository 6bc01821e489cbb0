"""What every family has in common: options, dilation, initialization, timm's classes."""

import inspect

import pytest
import timm
import torch
from torch import nn

from seewide.errors import InputError
from seewide.layers import DCNv3
from seewide.models import FAMILIES
from seewide.ops import use_backend
from seewide.testing import deviation, randomize

# A small network of each family, by arguments of `timm.create_model`.
COMMON = {"depths": (1, 1, 1, 2), "num_classes": 5}
SMALL = {
    "unireplknet_a": {**COMMON, "dims": (8, 8, 16, 16), "kernel_sizes": (3, 7, (13, 3), 7)},
    "lsnet_t": {**COMMON, "depths": (0, 2, 2, 2), "dims": (16, 16, 24, 32)},
    "uniconvnet_a": {**COMMON, "dims": (8, 16, 16, 16)},
    "replknet_31b": {**COMMON, "dims": (8, 8, 12, 16), "kernel_sizes": (13, 9, 7, 5)},
    "slak_t": {**COMMON, "dims": (8, 8, 12, 16), "kernel_sizes": (21, 9, 7, 5)},
    "pelk_t": {**COMMON, "dims": (16, 16, 24, 32), "kernel_sizes": (21, 13, 13, 5)},
}
# Another value for every argument of each family's class.
EVERYWHERE = {
    "in_chans": 1,
    "num_classes": 3,
    "global_pool": "max",
    "depths": (1, 2, 1, 2),
    "output_stride": 16,
    "drop_rate": 0.5,
    "drop_path_rate": 0.5,
}
CONVNEXT = {"dims": (24, 16, 24, 32), "ls_init_value": 0.5, "head_init_scale": 0.1}
OTHER = {
    "unireplknet_a": {
        **(EVERYWHERE | CONVNEXT),
        "kernel_sizes": (3, 9, 13, 7),
        "extra": "none",
        "reparam": "none",
    },
    "lsnet_t": {
        **EVERYWHERE,
        "depths": (1, 2, 2, 2),
        "dims": (24, 16, 24, 32),
        "img_size": 320,
        "num_heads": 2,
        "key_dim": 8,
        "mlp_ratio": 3.0,
        "mixer": "static",
        "large_kernel": 5,
        "small_kernel": 5,
        "group_width": 4,
        "depthwise": False,
        "squeeze_excite": False,
        "every_block": True,
        "distilled": True,
        "output_stride": 32,
    },
    "uniconvnet_a": {
        **(EVERYWHERE | CONVNEXT),
        "group_channels": 4,
        "kernel_sizes": (5, 7, 9),
        "aggregator": "depthwise",
        "local_mixer": "none",
    },
    "replknet_31b": {
        **EVERYWHERE,
        "dims": (24, 16, 24, 32),
        "kernel_sizes": (13, 9, 9, 5),
        "small_kernel": 3,
        "dw_ratio": 2.0,
        "ffn_ratio": 3.0,
    },
    "slak_t": {
        **(EVERYWHERE | CONVNEXT),
        "width_factor": 1.0,
        "width_multiple": 4,
        "kernel_sizes": (21, 9, 9, 5),
        "strip_width": 3,
        "decompose": False,
    },
    "pelk_t": {
        **(EVERYWHERE | CONVNEXT),
        "width_factor": 1.0,
        "width_multiple": 4,
        "kernel_sizes": (21, 13, 15, 5),
        "center": 3,
        "base": 1,
        "grids": [[7, 1, 1, 1, 7], [3, 2, 1, 2, 3], [1] * 7, [1, 1, 1]],
        "partial": 0.5,
        "partial_multiple": 1,
        "small_kernel": 3,
        "pos_mode": "none",
    },
}
NAMES = list(SMALL)


def build(name: str, **options) -> nn.Module:
    return timm.create_model(name, **{**SMALL[name], **options})


def properties(model: nn.Module) -> tuple:
    """Structure and initial parameters, in a form that can be compared."""
    sums = [(k, tuple(v.shape), v.double().sum().item()) for k, v in model.state_dict().items()]
    return repr(model), sums


def test_every_family_is_here():
    classes = {type(build(name, device="meta")) for name in NAMES}
    assert {cls.__module__ for cls in classes} == {family.__name__ for family in FAMILIES}


@pytest.mark.parametrize("name", NAMES)
def test_every_argument_changes_the_model_through_timm(name):
    """timm drops some arguments, for example those that are None."""
    torch.manual_seed(0)
    default = build(name)
    arguments = set(inspect.signature(type(default)).parameters) - {"device", "dtype"}
    assert arguments == OTHER[name].keys()
    before = properties(default)
    for key, value in OTHER[name].items():
        torch.manual_seed(0)
        assert properties(build(name, **{key: value})) != before, key
    assert next(build(name, dtype=torch.float64).parameters()).dtype == torch.float64
    assert next(build(name, device="meta").parameters()).is_meta


@pytest.mark.parametrize("name", [name for name in NAMES if "ls_init_value" in OTHER[name]])
def test_layer_scales_start_at_1e_6(name):
    model = build(name)
    scales = [p for key, p in model.named_parameters() if "gamma" in key.rpartition(".")[2]]
    assert scales
    for scale in scales:
        assert torch.equal(scale, torch.full_like(scale, 1e-6))


@pytest.mark.parametrize("name", NAMES)
def test_drop_path_rates_increase_linearly(name):
    """From 0 in the first block to the given rate in the last."""
    depths = SMALL[name]["depths"]
    model = build(name, drop_path_rate=0.2)
    rates = []
    for stage in model.stages[-4:]:
        for block in stage.blocks:
            found = {m.drop_prob for m in block.modules() if type(m).__name__ == "DropPath"}
            assert len(found) <= 1
            if not isinstance(block, nn.Identity):
                rates.append(found.pop() if found else 0.0)
    if name.startswith("replknet"):  # blocks come in pairs
        assert rates[::2] == rates[1::2]
        rates = rates[::2]
    want = torch.linspace(0, 0.2, sum(depths)).tolist()
    assert rates == pytest.approx(want)


@pytest.mark.parametrize("name", NAMES)
def test_images_of_a_batch_do_not_affect_each_other(name):
    model = randomize(build(name)).double().eval()
    x = torch.randn(3, 3, 64, 64, dtype=torch.float64)
    with torch.no_grad():
        together = model(x)
        for i in range(3):
            assert deviation(together[i : i + 1], model(x[i : i + 1])) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_layouts_and_sizes(name):
    """Both memory layouts agree with the operators' definitions; small inputs are accepted."""
    model = randomize(build(name)).double().eval()
    x = torch.randn(2, 3, 40, 72, dtype=torch.float64)
    with torch.no_grad():
        with use_backend("reference"):
            want = model(x)
        assert deviation(model(x), want) < 1e-9
        assert deviation(model(x.contiguous(memory_format=torch.channels_last)), want) < 1e-9
        assert model(torch.randn(1, 3, 32, 32, dtype=torch.float64)).isfinite().all()


@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", NAMES)
def test_output_stride(name, output_stride):
    """The same weights, features of that stride, and gradients for all parameters."""
    model, plain = build(name, output_stride=output_stride), build(name)
    randomize(plain)
    model.load_state_dict(plain.state_dict())
    reductions = [info["reduction"] for info in plain.feature_info]
    want = [min(reduction, output_stride) for reduction in reductions]
    assert [info["reduction"] for info in model.feature_info] == want
    x = torch.randn(2, 3, 64, 96)
    maps = model.forward_intermediates(x, intermediates_only=True)
    assert [tuple(m.shape[2:]) for m in maps] == [(64 // r, 96 // r) for r in want]
    model(x).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


# Options without operators over all pixels of a map.
LOCAL = {
    "unireplknet_a": {"extra": "none"},
    "lsnet_t": {"depths": (1, 2, 2, 0), "squeeze_excite": False, "mixer": "static"},
    "uniconvnet_a": {},
    "replknet_31b": {},
    "slak_t": {},
    "pelk_t": {"pos_mode": "constant"},
}


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("output_stride", [8, 16])
@pytest.mark.parametrize("name", LOCAL)
def test_dilated_features_contain_those_of_the_strided_network(name, output_stride, fused):
    """At every n-th row and column: dilation keeps what each layer computes."""
    options = LOCAL[name]
    plain = randomize(build(name, **options)).double().eval()
    for module in plain.modules():
        if isinstance(module, DCNv3):  # interpolation depends on the resolution
            nn.init.zeros_(module.offset.weight)
            nn.init.zeros_(module.offset.bias)
        if type(module).__name__ == "GlobalResponseNorm":  # it depends on the size of the map
            module.weight.data.zero_()
    model = build(name, output_stride=output_stride, **options).double().eval()
    model.load_state_dict(plain.state_dict())
    if fused:
        model, plain = (timm.models.reparameterize_model(m) for m in (model, plain))
    x = torch.randn(1, 3, 64, 128, dtype=torch.float64)
    with torch.no_grad():
        want, got = plain.forward_features(x), model.forward_features(x)
    step = got.shape[2] // want.shape[2]
    assert step > 1
    assert deviation(got[:, :, ::step, ::step], want) < 1e-9


def test_other_output_strides_are_refused():
    with pytest.raises(InputError, match="output_stride must be one of 8, 16, 32, got 4"):
        build("slak_t", output_stride=4)
    with pytest.raises(InputError, match="output_stride must be one of 8, 16, 32, 64, got 12"):
        build("lsnet_t", output_stride=12)


@pytest.mark.parametrize("name", NAMES)
def test_init_weights_after_to_empty(name):
    """All parameters and buffers get the values or the distribution that a new model has."""
    new = build(name)
    model = build(name, device="meta").to_empty(device="cpu")
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.fill_(float("nan") if tensor.is_floating_point() else 7)
    model.init_weights()
    for key, want in new.state_dict().items():
        got = model.state_dict()[key].double()
        assert got.isfinite().all(), key
        want = want.double()
        if want.numel() < 2 or want.std() == 0:
            assert torch.equal(got, want), key
        elif want.numel() > 200:
            assert got.std().item() == pytest.approx(want.std().item(), rel=0.3), key
        else:
            assert 0 < got.abs().max() < 5 * want.abs().max(), key


@pytest.mark.parametrize("name", NAMES)
def test_tools_that_look_for_timm_classes_find_one(name):
    classes = inspect.getmro(type(build(name, device="meta")))
    assert any(cls.__module__.startswith("timm.models") for cls in classes)
