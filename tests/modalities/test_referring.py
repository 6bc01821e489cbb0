"""Fusion modules, RefVOS' head and the referring segmenter."""

import pytest
import timm
import torch
from modality_figures import Figures, normal

import seewide
from seewide.errors import InputError
from seewide.modalities.fusion import FUSIONS, Fusion
from seewide.modalities.referring import ReferringSegmenter, RefVOSHead, WordEncoder
from seewide.testing import deviation, randomize


@pytest.mark.parametrize("name", ["refvos_head", "refvos_head_addition"])
def test_head_equals_the_authors(name):
    figures = Figures(name)
    addition = name.endswith("addition")
    channels, seed, shape = (320, 2, (2, 320, 12, 12)) if addition else (2048, 0, (1, 2048, 15, 13))
    head = RefVOSHead(channels, fusion="addition" if addition else "product")
    head.load_state_dict(figures.weights())
    x, sentence = normal(*shape, seed=seed).relu(), normal(shape[0], 768, seed=seed + 1)
    with torch.no_grad():
        head.eval()
        visual = head.aspp.project(torch.cat([conv(x) for conv in head.aspp.convs], 1))
        language = head.aspp.embedding_project(sentence)
        logits = head(x, sentence)
    assert deviation(visual[:, ::16], figures["visual_sample"]) < 1e-5
    assert deviation(language, figures["language"]) < 1e-5
    assert deviation(logits, figures["logits"]) < 1e-4


@pytest.mark.parametrize("kind", FUSIONS)
@pytest.mark.parametrize("shape", [(2, 5, 7), (2, 5, 3, 4)], ids=["words", "map"])
def test_fusions_take_words_and_maps_and_ignore_padding(kind, shape):
    fusion = randomize(Fusion(6, 5, kind)).eval()
    x, other = torch.randn(2, 6, 8, 9), torch.randn(shape)
    mask = torch.ones(2, *shape[2:], dtype=torch.bool)
    mask[0, -2:] = False
    y = fusion(x, other, mask)
    assert y.shape == x.shape
    changed = other.clone()
    changed[0, :, -2:] = 100.0
    assert torch.allclose(fusion(x, changed, mask), y, atol=1e-5)
    assert not torch.allclose(fusion(x, 2 * other, mask), y, atol=1e-3)
    torch.autograd.grad(y.sum(), list(fusion.parameters()))


def test_asymmetric_fusion_starts_as_the_shortcut_alone():
    fusion = Fusion(4, 4).eval()
    x = torch.randn(1, 4, 6, 6)
    assert torch.allclose(fusion(x, torch.randn(1, 4, 5)), x + fusion.norm(x), atol=1e-6)


def test_product_is_the_asymmetric_convolution_with_one_vector():
    from seewide.ops import asymmetric_conv

    fusion = Fusion(4, 5, "product")
    x, sentence = torch.randn(2, 4, 6, 6), torch.randn(2, 5, 1)
    kernel = fusion.project(sentence)
    assert torch.allclose(fusion(x, sentence), asymmetric_conv(x, kernel), atol=1e-6)


def test_padding_words_do_not_change_a_sentence():
    text = WordEncoder(20, 16)
    ids = torch.tensor([[3, 4, 5, 0, 0], [7, 8, 9, 10, 11]])
    got = text(ids, ids != 0)
    assert torch.allclose(got[:1, :, :3], text(ids[:1, :3], ids[:1, :3] != 0), atol=1e-6)
    assert got[0, :, 3:].eq(0).all()
    assert (
        text(torch.zeros(1, 2, dtype=torch.long), torch.zeros(1, 2, dtype=torch.bool)).eq(0).all()
    )


@pytest.mark.parametrize("kind", FUSIONS)
def test_segmenter_trains_and_fuses(kind):
    backbone = timm.create_model("unireplknet_a", features_only=True, dims=(8, 12, 16, 20))
    model = ReferringSegmenter(backbone, 30, 16, 16, kind, kernel_size=5)
    image, ids = torch.randn(2, 3, 64, 96), torch.randint(1, 30, (2, 6))
    logits = model(image, ids)
    assert logits.shape == (2, 1, 64, 96)
    logits.square().mean().backward()
    fused = seewide.fuse(randomize(model))
    with torch.no_grad():
        assert deviation(fused(image, ids), model.eval()(image, ids)) < 1e-3


def test_bad_arguments_are_one_sentence():
    with pytest.raises(InputError, match="unknown fusion 'sum'"):
        Fusion(4, 4, "sum")
    with pytest.raises(InputError, match=r"must be odd, or 0 .* got 4"):
        Fusion(4, 4, kernel_size=4)
    with pytest.raises(InputError, match="unknown fusion 'concat'"):
        RefVOSHead(8, fusion="concat")
