"""RepLKNet: results of the authors' code, fusing, graph capture."""

import pytest
import timm
import torch
from authors import check_layout, check_plain_parity
from family_checks import check_captured, check_features, check_fused, check_onnx

import seewide
from seewide.models.replknet import RepLKNet, checkpoint_filter_fn
from seewide.testing import deviation, randomize

# Counted on the authors' file.
PARAMETERS = {"31b": 79_864_168, "31l": 172_671_016, "xl": 335_435_752}


def small(**kwargs) -> RepLKNet:
    sizes = {"depths": (1, 1, 2, 1), "dims": (8, 8, 12, 16), "kernel_sizes": (31, 9, 7, 5)}
    return RepLKNet(**{**sizes, "dw_ratio": 1.5, "num_classes": 7, **kwargs})


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters(size):
    model = timm.create_model(f"replknet_{size}", device="meta")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[size]


def test_stages_and_logits_equal_the_authors():
    check_plain_parity("replknet.31b", "replknet_31b")


@pytest.mark.parametrize("size", PARAMETERS)
def test_names_and_shapes_of_the_authors_files(size):
    check_layout("replknet", size, f"replknet_{size}")


def authors_layout(model: RepLKNet) -> dict[str, torch.Tensor]:
    """The state dict of `small()` as the authors' code names it, written out by hand."""
    own = {}
    for key, value in model.state_dict().items():
        name = key.replace(".norm0.", ".bn0.").replace(".norm.", ".bn.")
        parts = name.split(".")
        if parts[0] == "stem":
            name = ".".join(["stem", str(int(parts[1]) // 2), *parts[2:]])
        elif "downsample" in parts:
            stage, layer = int(parts[1]) - 1, int(parts[3]) // 2
            name = ".".join(["transitions", str(stage), str(layer), *parts[4:]])
        elif parts[0] == "stages":
            pre = "prelkb_bn" if int(parts[3]) % 2 == 0 else "preffn_bn"
            name = name.replace("pw1.bn0", pre).replace("dwconv.large", "large_kernel.lkb_origin")
            name = name.replace("dwconv.small.k5_d1", "large_kernel.small_conv")
        elif parts[1] == "bn":
            name = "norm." + parts[-1]
        else:
            name = "head." + parts[-1]
        own[name] = value
    return own


def mmpretrain_layout(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    renamed = {}
    for key, value in state.items():
        if key.startswith("head."):
            renamed[key.replace("head.", "head.fc.")] = value
        elif key.startswith("norm."):
            renamed["backbone.stages.3." + key] = value
        else:
            renamed["backbone." + key] = value
    return renamed


@pytest.mark.parametrize("layout", [lambda state: state, mmpretrain_layout])
def test_both_published_layouts_load(layout):
    model, other = randomize(small()), small()
    state = layout(authors_layout(model))
    seewide.load_checkpoint(other, state)
    for key, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[key]), key
    own = model.state_dict()
    assert checkpoint_filter_fn(own, model).keys() == own.keys()


@pytest.mark.parametrize("options", [{}, {"small_kernel": 0}, {"global_pool": "fast"}])
def test_fused_equals_unfused(options):
    check_fused(small(**options))


def test_a_norm_without_a_classifier_stays():
    """There is nothing to fold it into; the output is the same."""
    model = randomize(small(num_classes=0)).eval()
    fused, x = seewide.fuse(model), torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert deviation(fused(x), model(x)) < 1e-5
    assert isinstance(fused.head.norm, torch.nn.BatchNorm2d)


def test_scripted_compiled_exported_traced():
    check_captured(small(drop_path_rate=0.1))


@pytest.mark.slow
def test_onnx(tmp_path):
    check_onnx(small(), tmp_path)


def test_features():
    check_features("replknet_31b", (128, 256, 512, 1024))


def test_wrong_stage_count_is_a_sentence():
    with pytest.raises(seewide.InputError, match="need 4 entries each, got"):
        small(depths=(1, 1, 1))
