"""Other libraries build on our networks because timm knows them; nothing of ours is needed."""

import pytest
import torch

import seewide

SMALLEST = ["unireplknet_a", "lsnet_t", "uniconvnet_a", "pelk_t_dense"]
LARGER = ["replknet_31b", "slak_t"]


@pytest.mark.parametrize(
    "name", [*SMALLEST, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGER)]
)
@pytest.mark.parametrize("decoder", ["Unet", "UPerNet"])
def test_segmentation_models_pytorch(name, decoder):
    smp = pytest.importorskip("segmentation_models_pytorch")
    model = getattr(smp, decoder)(f"tu-{name}", encoder_weights=None, classes=4).eval()
    with torch.no_grad():
        assert model(torch.randn(1, 3, 128, 192)).shape == (1, 4, 128, 192)


@pytest.mark.filterwarnings("ignore:Importing from timm.models:FutureWarning")
def test_open_clip_builds_a_tower():
    open_clip = pytest.importorskip("open_clip")
    with torch.device("meta"):
        tower = open_clip.timm_model.TimmModel("unireplknet_l", embed_dim=64, image_size=224)
        assert tower(torch.empty(2, 3, 224, 224)).shape == (2, 64)
    tower = open_clip.timm_model.TimmModel("unireplknet_a", embed_dim=64, image_size=96)
    tower.lock(unlocked_groups=1)
    tower.set_grad_checkpointing()
    frozen = [not p.requires_grad for p in tower.parameters()]
    assert any(frozen)
    assert not all(frozen)
    assert tower(torch.randn(2, 3, 96, 96)).shape == (2, 64)


def test_transformers_backbone():
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmBackboneConfig(
        backbone="unireplknet_a", use_pretrained_backbone=False, out_indices=[0, 3]
    )
    backbone = transformers.TimmBackbone(config).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96)).feature_maps
    assert [tuple(m.shape) for m in maps] == [(1, 40, 16, 24), (1, 320, 2, 3)]


def test_our_names_are_what_the_libraries_use():
    assert set(SMALLEST + LARGER) <= set(seewide.list_models())
