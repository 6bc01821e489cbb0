"""The stride at which the stages begin, lowered for small images."""

from __future__ import annotations

from dataclasses import replace

import pytest
import timm
import torch

from seewide.errors import InputError
from seewide.train import fit, load_run, resume
from seewide.train.stem import set_stem_stride

FAMILIES = ("lsnet_t", "unireplknet_a", "uniconvnet_a", "pelk_t", "convnext_atto", "repvit_m0_9")


@pytest.mark.parametrize("name", [*FAMILIES, "resnet18", "fastvit_t8"])
@pytest.mark.parametrize("wanted", [1, 2])
def test_the_total_stride_is_eight_times_the_stem(name, wanted):
    model = timm.create_model(name, num_classes=3).eval()
    before = {key: value.shape for key, value in model.state_dict().items()}
    set_stem_stride(model, name, wanted)
    x_1CHW = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert model.forward_features(x_1CHW).shape[-2:] == (4 // wanted, 4 // wanted)
        assert model(x_1CHW).shape == (1, 3)
    assert max(level["reduction"] for level in model.feature_info) == 8 * wanted
    assert {key: value.shape for key, value in model.state_dict().items()} == before


def test_its_own_stride_changes_nothing():
    torch.manual_seed(0)
    model = timm.create_model("test_convnext", num_classes=3).eval()
    x_1CHW = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x_1CHW)
        assert torch.equal(set_stem_stride(model, "test_convnext", 4)(x_1CHW), expected)


def test_networks_without_stages_and_other_strides_are_refused():
    vit = timm.create_model("test_vit")
    with pytest.raises(InputError, match="test_vit does not have four stages"):
        set_stem_stride(vit, "test_vit", 2)
    with pytest.raises(InputError, match="test_convnext must be one of 1, 2, 4, got 3"):
        set_stem_stride(timm.create_model("test_convnext"), "test_convnext", 3)


def test_a_run_restores_its_stem_stride(tmp_path, images, quiet, small):
    recipe = replace(small, stem_stride=2, epochs=1)
    fit("test_convnext", images, recipe, tmp_path / "run", workers=0, console=quiet)
    model, _, info = load_run(tmp_path / "run")
    assert info.backbone == {"stem_stride": 2, "model_options": {}}
    assert model.stem[0].stride == (2, 2)
    resume(tmp_path / "run", console=quiet)
