"""PeLK: the paper's tables under its counting, fusing, graph capture."""

import pytest
import timm
import torch
from family_checks import check_captured, check_features, check_fused, check_onnx

import seewide
from seewide.analysis.cost import count_cost
from seewide.layers.peripheral import PartialMixer, PeripheralReparamBlock, refine
from seewide.models.pelk import PeLK, partial_channels
from seewide.ops import sharing_grid
from seewide.testing import assert_equal, randomize


def small(**kwargs) -> PeLK:
    sizes = {"depths": (1, 1, 2, 1), "dims": (16, 16, 24, 32), "kernel_sizes": (51, 21, 13, 5)}
    return PeLK(**{**sizes, "num_classes": 7, **kwargs})


def cost(name: str, size: int = 224):
    return count_cost(timm.create_model(name, device="meta"), (1, 3, size, size))


# Table 4 counts a network 1.3 times as wide with 40% of its weights removed. SLaK's own published
# multiply-adds, with the same sparsity, are 0.573 (T) to 0.59 (S, B) of its dense ones.
@pytest.mark.parametrize(
    ("name", "size", "millions", "giga", "remaining"),
    [
        ("pelk_t", 224, 29, 5.6, 0.573),
        ("pelk_s", 224, 50, 10.7, 0.585),
        ("pelk_b", 224, 89, 18.3, 0.59),
        ("pelk_b", 384, 89, 54.0, 0.59),
        ("pelk101_b", 384, 90, 68.3, 0.59),
    ],
)
def test_the_papers_figures(name, size, millions, giga, remaining):
    counted = cost(name, size)
    assert 0.6 * counted.parameters / 1e6 == pytest.approx(millions, rel=0.025)
    assert remaining * counted.macs / 1e9 == pytest.approx(giga, rel=0.015)


def test_dense_counts():
    """T and S of width 1.3 before sparsity, as computed from the paper's kernel sizes."""
    assert cost("pelk_t").macs / 1e9 == pytest.approx(9.8, rel=0.01)
    assert cost("pelk_s").macs / 1e9 == pytest.approx(18.3, rel=0.01)


# Counted here; a change of any layer changes one of them.
PARAMETERS = {
    "pelk_t": 48_717_466,
    "pelk_s": 85_301_242,
    "pelk_b": 150_208_354,
    "pelk_t_dense": 29_307_004,
    "pelk_s_dense": 51_109_180,
    "pelk_b_dense": 89_772_120,
    "pelk101_t": 49_857_178,
    "pelk101_s": 86_626_426,
    "pelk101_b": 151_999_362,
    "pelk151_t": 51_392_666,
}


@pytest.mark.parametrize("name", PARAMETERS)
def test_parameters(name):
    model = timm.create_model(name, device="meta")
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS[name]


def test_kernels_are_a_quarter_of_the_multiply_adds():
    """Figure 5: about 25% in the large kernels. The paper has 0.05% in the embedding.

    With a batch of one at 224 x 224 the map of the embedding costs 1.5%, once per batch.
    """
    with_all = cost("pelk_t").macs
    without = count_cost(timm.create_model("pelk_t", device="meta", pos_mode="none")).macs
    assert (with_all - without) / with_all == pytest.approx(0.0147, abs=1e-4)
    kernels = sum(
        depth * partial_channels(int(1.3 * width), 3 / 8) * size**2 * side**2
        for depth, width, size, side in zip(
            (3, 3, 9, 3), (96, 192, 384, 768), (51, 49, 47, 13), (56, 28, 14, 7), strict=True
        )
    )
    assert kernels / with_all == pytest.approx(0.25, abs=0.02)


def test_sharing_saves_the_weights_of_the_paper():
    """Table 6's dense baseline has K x K weights where the peripheral network has k x k."""
    blocks = small(partial=1, small_kernel=0, pos_mode="none", width_factor=1.0)
    dense = small(partial=1, small_kernel=0, pos_mode="none", width_factor=1.0, base=1)
    saved = [
        sum(p.numel() for name, p in model.named_parameters() if "mixer.large.conv" in name)
        for model in (blocks, dense)
    ]
    counts = [(16, 13, 51), (16, 11, 21), (24, 9, 13), (24, 9, 13), (32, 5, 5)]
    assert len(sharing_grid(21)) == 11
    assert saved == [sum(c * k**2 for c, k, _ in counts), sum(c * K**2 for c, _, K in counts)]


OPTIONS = [
    {},
    {"pos_mode": "none"},
    {"pos_mode": "constant"},
    {"small_kernel": 0},
    {"partial": 1},
    {"base": 1},
    {"center": 1},
    {"grids": [[7, 1, 1, 1, 7], [3, 2, 1, 2, 3], [1] * 7, [1, 1, 1]]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_fused_equals_unfused(options):
    fused = check_fused(small(**options))
    assert not [name for name, _ in fused.named_parameters() if "gamma" in name]


@pytest.mark.parametrize("options", [{}, {"pos_mode": "none", "partial": 1}], ids=str)
def test_scripted_compiled_exported_traced(options):
    check_captured(small(drop_path_rate=0.1, **options))


@pytest.mark.slow
def test_onnx(tmp_path):
    check_onnx(small(), tmp_path)


def test_features():
    check_features("pelk_t", (124, 249, 499, 998))
    check_features("pelk_t_dense", (96, 192, 384, 768))


def test_blocks_of_a_stage_share_their_embedding():
    names = [name for name, _ in small().named_parameters() if "pos_embed" in name]
    assert names == [f"stages.{i}.pos_embed" for i in range(4)]
    model = small()
    assert model.stages[2].pos_embed.shape == (partial_channels(31, 3 / 8), 13, 13)
    assert model.stages[2].pos_embed.std().item() == pytest.approx(0.02, rel=0.2)


def test_the_valid_embedding_tells_places_apart_and_the_constant_one_does_not():
    """On an input of zeros, only the embedding can vary over the map."""
    grid = sharing_grid(31)
    embedding = torch.randn(4, 31, 31, dtype=torch.float64)
    x = torch.zeros(1, 4, 14, 20, dtype=torch.float64)
    for mode, varies in (("valid", True), ("constant", False)):
        block = randomize(PeripheralReparamBlock(4, grid, 5, mode).double()).eval()
        y = block(x, embedding)
        assert (y.flatten(2).std(dim=2) > 1e-3).all() == varies
        assert_equal(block.fuse()(x, embedding), y)


def test_the_other_channels_pass_unchanged():
    block = PartialMixer(PeripheralReparamBlock(4, sharing_grid(13)), 4)
    x = torch.randn(2, 10, 9, 7)
    y = block(x)
    assert torch.equal(y[:, 4:], x[:, 4:])
    assert not torch.allclose(y[:, :4], x[:, :4])


def test_partial_channels():
    """3/8 of ConvNeXt's widths is exact; of SLaK's, rounded down to a multiple of 4."""
    assert [partial_channels(dim, 3 / 8) for dim in (96, 128, 192)] == [36, 48, 72]
    assert [partial_channels(dim, 3 / 8) for dim in (124, 249, 499, 998)] == [44, 92, 184, 372]
    assert partial_channels(13, 1) == 13
    assert partial_channels(8, 0.1) == 4


def test_refine():
    assert refine([3, 2, 1, 2, 3], 5) == ([3, 1, 1, 1, 1, 1, 3], [0, 1, 1, 2, 3, 3, 4])
    assert refine([5, 1, 5], 5) == ([3, 1, 1, 1, 1, 1, 3], [0, 0, 0, 1, 2, 2, 2])
    assert refine(sharing_grid(51), 5) == (sharing_grid(51), list(range(13)))


def test_bad_arguments_are_sentences():
    with pytest.raises(seewide.InputError, match="above 0 and at most 1, got partial=0"):
        small(partial=0)
    with pytest.raises(seewide.InputError, match="kernel_sizes or grids needs 4 entries, got 3"):
        small(kernel_sizes=(51, 49, 47))
    with pytest.raises(seewide.InputError, match="small_kernel must be odd and at most 51"):
        small(small_kernel=4)
