"""UniRepLKNet: results of the authors' code, the papers' tables, fusing, graph capture."""

import pytest
import timm
import torch
from authors import LAYOUTS, check_layout, check_plain_parity, digest
from family_checks import check_fused
from timm.models import reparameterize_model
from torch import nn

import seewide
from seewide.analysis.cost import count_cost
from seewide.models.unireplknet import (
    UniRepLKNet,
    authors_state_dict,
    checkpoint_filter_fn,
)
from seewide.reparam import fuse_checked
from seewide.testing import deviation, randomize

# Parameters in unfused, counted on the authors' files; fused, as the papers print them
# (2311.15599 Table 5, 2410.08049 Table 4) in millions.
PARAMETERS = {
    "a": (4_649_060, 4.4),
    "f": (6_489_328, 6.2),
    "p": (11_080_520, 10.7),
    "n": (18_818_880, 18.3),
    "t": (31_693_420, 31.0),
    "s": (56_456_704, 55.6),
    "b": (99_089_416, 97.9),
    "l": (220_076_056, 218.3),
    "xl": (388_690_984, 386.4),
}


def small(**kwargs) -> UniRepLKNet:
    """All kinds of blocks in a network of a few thousand parameters."""
    sizes = (3, 13, (7, 3, 0), (5, 9))
    return UniRepLKNet(
        **{"depths": (1, 1, 3, 2), "dims": (8, 12, 16, 20), "kernel_sizes": sizes, **kwargs}
    )


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters(size):
    """In unfused; and fused, to the digit that the paper prints.

    The paper's counter sees layers, and so misses the GRN's free parameters: 0.14 M for XL.
    """
    model = timm.create_model(f"unireplknet_{size}", device="meta")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[size][0]
    fused = seewide.fuse(model)
    counted = sum(p.numel() for name, p in fused.named_parameters() if "grn." not in name)
    assert round(counted / 1e6, 1) == PARAMETERS[size][1]


@pytest.mark.parametrize("size", ["a", "t"])
def test_stages_and_logits_equal_the_authors(size):
    check_plain_parity(f"unireplknet.{size}", f"unireplknet_{size}")


@pytest.mark.parametrize("size", PARAMETERS)
def test_names_and_shapes_of_the_authors_files(size):
    """Of the unfused network, and of the fused one."""
    check_layout("unireplknet", size, f"unireplknet_{size}")
    fused = seewide.fuse(timm.create_model(f"unireplknet_{size}", device="meta"))
    theirs = authors_state_dict(fused.state_dict())
    assert digest(theirs) == LAYOUTS["unireplknet"][size]["fused_sha256"]
    own = fused.state_dict()
    back = checkpoint_filter_fn(theirs, fused)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in own.items()}


@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
def test_fused_equals_unfused(dtype, limit):
    model = randomize(small()).to(dtype).eval()
    fused, report = fuse_checked(model)
    assert report.deviation < limit
    for shape in ((1, 3, 64, 96), (3, 3, 50, 33)):
        x = torch.randn(shape, dtype=dtype)
        with torch.no_grad():
            assert deviation(fused(x), model(x)) < limit


def test_fused_equals_unfused_under_autocast():
    model = randomize(small()).eval()
    fused, x = seewide.fuse(model), torch.randn(2, 3, 64, 96)
    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        got, want = fused(x), model(x)
    exact = model(x)
    assert deviation(got, exact) < 2 * max(deviation(want, exact), 4e-3)


def test_nothing_is_left_to_switch():
    fused = seewide.fuse(small())
    assert not [m for m in fused.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert not [m for m in fused.modules() if any(hasattr(m, h) for h in ("fuse", "branches"))]
    names = [name for name, _ in fused.named_parameters()]
    assert not [name for name in names if "gamma" in name or "grn.bias" in name]


def test_timm_reparameterizes_to_the_same():
    model = randomize(small()).eval()
    x = torch.randn(1, 3, 64, 64)
    ours, timms = seewide.fuse(model), reparameterize_model(model)
    assert ours.state_dict().keys() == timms.state_dict().keys()
    assert torch.equal(ours(x), timms(x))


def test_fused_model_trains_exports_and_scripts():
    fused = seewide.fuse(randomize(small()))
    x = torch.randn(2, 3, 64, 64)
    fused(x).sum().backward()
    assert all(p.grad is not None for p in fused.parameters())
    want = fused(x)
    assert deviation(torch.export.export(fused, (x,)).module()(x), want) < 1e-5
    assert deviation(torch.jit.script(fused)(x), want) < 1e-5
    assert deviation(torch.compile(fused, fullgraph=True, backend="aot_eager")(x), want) < 1e-5


def test_timm_options():
    model = timm.create_model(
        "unireplknet_a", in_chans=1, num_classes=0, global_pool="", features_only=True
    )
    maps = model(torch.randn(1, 1, 64, 96))
    assert [m.shape[1:] for m in maps] == [(40, 16, 24), (80, 8, 12), (160, 4, 6), (320, 2, 3)]
    with pytest.raises(TypeError, match="deploy"):
        timm.create_model("unireplknet_a", deploy=True)


# The comparison of 2410.08049, section 3.2, on a network of ConvNeXt-T's size: parameters in
# millions and multiply-adds in G as Table 3a prints them, fused, without the GRN's (see above).
EXTRA = {
    "none": (31.3, 4.92),
    "bottleneck": (32.9, 5.18),
    "two_pointwise": (32.9, 5.17),
    "two_depthwise": (31.4, 4.96),
    "se": (32.9, 4.92),
}


@pytest.mark.parametrize("extra", EXTRA)
def test_extra_structures_cost_what_the_paper_says(extra):
    model = timm.create_model("unireplknet_vanilla", extra=extra, device="meta")
    model = seewide.fuse(model)
    parameters = sum(p.numel() for name, p in model.named_parameters() if "grn." not in name)
    millions, giga = EXTRA[extra]
    assert round(parameters / 1e6, 1) == millions
    assert count_cost(model).macs / 1e9 == pytest.approx(giga, rel=0.01)


@pytest.mark.parametrize(
    "change",
    [
        *({"extra": extra} for extra in EXTRA if extra != "se"),
        *({"reparam": form} for form in ("same_size", "same_reach", "none")),
        {"reparam": "none", "kernel_sizes": (3, 31, (31, 0), 13)},
    ],
    ids=str,
)
def test_ablations_are_other_networks_that_fuse_and_train(change):
    model, plain = small(**change), small()
    assert model.state_dict().keys() != plain.state_dict().keys()
    check_fused(model)
    model.float().train()(torch.randn(2, 3, 64, 96)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert torch.jit.script(model)


def test_bad_arguments_are_sentences():
    with pytest.raises(seewide.InputError, match="kernel_sizes need 4 entries each, got"):
        UniRepLKNet(depths=(1, 1, 1), dims=(8, 8, 8, 8))
    with pytest.raises(seewide.InputError, match=r"kernel_sizes need 4 entries each, got .* 13$"):
        small(kernel_sizes=13)
    with pytest.raises(seewide.InputError, match=r"of stage 2 name no size, got \(3, 13, \(\), 13"):
        small(kernel_sizes=(3, 13, (), 13))
    with pytest.raises(seewide.InputError, match="extra structure 'botleneck'; did you mean bott"):
        small(extra="botleneck")
    with pytest.raises(seewide.InputError, match="re-parameterization 'dense'; known are dilated,"):
        small(reparam="dense")
    with pytest.raises(seewide.InputError, match="no branches are known for kernel_size=31; known"):
        small(kernel_sizes=(3, 31, 13, 13))
