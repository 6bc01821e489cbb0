"""LSNet: results of the authors' code, any input size, ablations, fusing, graph capture."""

import pytest
import timm
import torch
from authors import check_calm_parity, check_layout
from family_checks import check_captured, check_fused
from torch import nn

import seewide
from seewide.layers import BiasedAttention, DepthwiseConv2d, LSConv, RepDepthwise, resize_biases
from seewide.layers.token_mixers import MIXERS
from seewide.models.lsnet import LSNet, authors_state_dict, checkpoint_filter_fn
from seewide.testing import deviation, randomize

# Parameters in unfused, counted on the authors' files (one head, two heads); fused.
PARAMETERS = {
    "t": (11_409_832, 11_795_600, 11_370_488),
    "s": (16_146_304, 16_596_200, 16_098_232),
    "b": (23_313_608, 23_827_632, 23_249_320),
}


def small(**kwargs) -> LSNet:
    """All kinds of blocks, and a stage without any, in a few thousand parameters."""
    return LSNet(**{"depths": (0, 2, 3, 3), "dims": (16, 16, 24, 32), "num_classes": 10, **kwargs})


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("size", PARAMETERS)
def test_parameters(size):
    one, two, fused = PARAMETERS[size]
    model = timm.create_model(f"lsnet_{size}", device="meta")
    assert count(model) == one
    assert count(timm.create_model(f"lsnet_{size}_distill", device="meta")) == two
    assert count(seewide.fuse(model)) == fused


@pytest.mark.parametrize("size", ["t", "b"])
def test_stages_and_logits_equal_the_authors(size):
    check_calm_parity(f"lsnet.{size}", f"lsnet_{size}", [2, 3, 4, 5])


@pytest.mark.parametrize("variant", [f"{s}{d}" for s in "tsb" for d in ("", "_distill")])
def test_names_and_shapes_of_the_authors_files(variant):
    check_layout("lsnet", variant, f"lsnet_{variant}")


def test_to_the_authors_layout_and_back_is_exact():
    model = randomize(small(distilled=True))
    own = model.state_dict()
    theirs = authors_state_dict(own)
    assert {"patch_embed.4.bn.running_var", "blocks2.3.mixer.lkp.cv4.bias", "head_dist.l.weight",
            "blocks4.3.mixer.m.attention_bias_idxs"} <= theirs.keys()  # fmt: skip
    index = theirs["blocks4.3.mixer.m.attention_bias_idxs"]
    assert index[0].tolist() == list(range(16)), "from the first pixel, distances are positions"
    assert index[5, 10] == index[10, 5] == 5, "one down, one right"
    back = checkpoint_filter_fn(theirs, model)
    assert back.keys() == own.keys()
    assert all(torch.equal(back[key], own[key]) for key in own)


@pytest.mark.parametrize("distilled", [False, True])
def test_fused_equals_unfused(distilled):
    fused = check_fused(small(depths=(1, 2, 3, 3), distilled=distilled))
    assert isinstance(fused.stages[3].blocks[0].dw, DepthwiseConv2d)
    assert isinstance(fused.head.fc, nn.Linear)


def test_scripted_compiled_exported_traced():
    check_captured(small())


def test_two_heads_script_and_train():
    model = randomize(small(distilled=True))
    x = torch.randn(2, 3, 64, 96)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    model.eval()
    assert deviation(torch.jit.script(model)(x), model(x)) < 1e-5


def test_fused_model_scripts_exports_and_runs_in_bf16():
    fused = seewide.fuse(randomize(small()))
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        want = fused(x)
        assert deviation(torch.jit.script(fused)(x), want) < 1e-5
        assert deviation(torch.export.export(fused, (x,)).module()(x), want) < 1e-5
        assert fused.to(torch.bfloat16)(x.bfloat16()).dtype == torch.bfloat16


def test_two_heads_are_averaged_and_both_trained():
    model = randomize(small(distilled=True))
    x = torch.randn(2, 3, 64, 64)
    assert model(x).shape == (2, 10)
    model.set_distilled_training(True)
    y, y_dist = model(x)
    assert not torch.equal(y, y_dist)
    model.eval()
    last = model.forward_features(x)
    pooled = last.mean((2, 3))
    fc, fc_dist = model.get_classifier()
    assert deviation(model(x), (fc(pooled) + fc_dist(pooled)) / 2) < 1e-5
    with pytest.raises(seewide.InputError, match="build it with distilled=True"):
        small().set_distilled_training()


def test_any_input_size():
    """Odd, small, wide; and what a larger map means for the biases."""
    model = randomize(small()).eval()
    for size in ((96, 96), (128, 128), (384, 384), (100, 260), (1, 1)):
        x = torch.randn(1, 3, *size)
        with torch.no_grad():
            got = model(x)
            resized = small(img_size=size).eval()
            seewide.load_checkpoint(resized, model.state_dict())
            assert deviation(resized(x), got) < 1e-5, size


def test_set_input_size_keeps_the_function_and_the_state():
    model = randomize(small()).eval().requires_grad_(False)
    x = torch.randn(1, 3, 320, 200)
    with torch.no_grad():
        want = model(x)
        model.set_input_size((320, 200))
        assert deviation(model(x), want) < 1e-5
    attention = next(m for m in model.modules() if isinstance(m, BiasedAttention))
    assert attention.resolution == (5, 4)
    assert attention.attention_biases.shape == (4, 20)
    assert not attention.attention_biases.requires_grad
    with pytest.raises(seewide.InputError, match="not those of a square map"):
        authors_state_dict(model.state_dict())
    with pytest.raises(seewide.InputError, match="img_size must be positive, got 0"):
        model.set_input_size(0)


def test_resized_biases_keep_the_ends():
    table = torch.randn(2, 16)
    assert resize_biases(table, (4, 4), (4, 4)) is table
    grid = resize_biases(table, (4, 4), (7, 10)).unflatten(1, (7, 10))
    small_grid = table.unflatten(1, (4, 4))
    assert torch.allclose(grid[:, ::2, ::3], small_grid), "3 of 6 and of 9 steps meet the old"
    assert grid.amax() <= table.amax()
    assert torch.equal(resize_biases(table, (4, 4), (1, 1))[:, 0], table[:, 0]), "distance 0"


def test_biases_follow_the_weights():
    """In evaluation mode: after loading, in-place change, another dtype, and training."""
    attention = randomize(BiasedAttention(32, 4)).eval()
    other = randomize(BiasedAttention(32, 4), seed=1).eval()
    x = torch.randn(2, 32, 4, 4)
    with torch.no_grad():
        before, want = attention(x), other(x)
        attention.load_state_dict(other.state_dict())
        assert torch.equal(attention(x), want)
        assert not torch.allclose(before, want)
        attention.attention_biases.zero_()
        changed = attention(x)
        assert not torch.allclose(changed, want)
        assert deviation(attention.double()(x.double()), changed) < 1e-5
        assert attention.bfloat16()(x.bfloat16()).dtype == torch.bfloat16


def test_attention_is_the_formula():
    """Head by head, pixel by pixel, from the folded weights."""
    fused = seewide.fuse(randomize(BiasedAttention(8, 2, key_dim=4, resolution=(3, 2))).double(),
                         torch.randn(1, 8, 3, 2, dtype=torch.float64))  # fmt: skip
    x = torch.randn(1, 8, 3, 2, dtype=torch.float64)
    q, k, v = fused.qkv(x).split([8, 8, 8], 1)
    q = fused.dw(q)
    out = torch.zeros_like(v)
    for head in range(2):
        channels = slice(4 * head, 4 * head + 4)
        for i in range(6):
            scores = []
            for j in range(6):
                distance = abs(i // 2 - j // 2) * 2 + abs(i % 2 - j % 2)
                qi, kj = q[0, channels, i // 2, i % 2], k[0, channels, j // 2, j % 2]
                scores.append(qi @ kj / 2 + fused.attention_biases[head, distance])
            share = torch.stack(scores).softmax(0)
            out[0, channels, i // 2, i % 2] = v[0, channels].flatten(1) @ share
    assert deviation(fused(x), fused.proj(out.relu())) < 1e-12


def kinds(model: LSNet) -> list[set[type]]:
    """Which mixers, depthwise convolutions and SE each block of stages 3 to 5 has."""
    return [
        {type(part) for part in (block.mixer, block.dw, block.se)} - {nn.Identity}
        for stage in model.stages[3:]
        for block in stage.blocks
    ]


def test_blocks_take_turns_or_have_everything():
    turns = kinds(small())
    assert [len(kind) for kind in turns] == [2, 1, 2, 1, 2, 2, 1, 2]
    assert turns[1] == {LSConv}
    everything = kinds(small(every_block=True))
    assert all(len(kind) == 3 and RepDepthwise in kind for kind in everything)
    assert sum(LSConv in kind for kind in everything) == 5


@pytest.mark.parametrize(
    "change",
    [
        {"large_kernel": 0},
        {"large_kernel": 11},
        *({"mixer": mixer} for mixer in MIXERS if mixer != "ls"),
        {"small_kernel": 5},
        {"group_width": 4},
        {"group_width": 1},
        {"depthwise": False},
        {"squeeze_excite": False},
        {"every_block": True},
    ],
    ids=lambda change: "-".join(f"{k}={v}" for k, v in change.items()),
)
def test_ablations_are_other_networks_that_fuse_and_train(change):
    model, plain = small(**change), small()
    assert count(model) != count(plain)
    fused = seewide.fuse(randomize(model).double())
    x = torch.randn(2, 3, 64, 96, dtype=torch.float64)
    assert deviation(fused(x), model.eval()(x)) < 1e-10
    model.train()(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


def test_without_perception_weights_come_from_the_pixel_alone():
    layer = randomize(LSConv(16, large_kernel=0)).eval()
    x = torch.randn(1, 16, 9, 9, requires_grad=True)
    grad = torch.autograd.grad(layer.lkp(x)[0, :, 4, 4].sum(), x)[0]
    assert torch.equal(grad.abs().sum((0, 1)).nonzero(), torch.tensor([[4, 4]]))
    seeing = randomize(LSConv(16, large_kernel=7)).eval()
    grad = torch.autograd.grad(seeing.lkp(x)[0, :, 4, 4].sum(), x)[0]
    assert (grad.abs().sum((0, 1)) > 0).sum() > 9


def test_features_at_all_strides():
    model = timm.create_model("lsnet_t", device="meta", in_chans=1, features_only=True)
    assert model.feature_info.reduction() == [2, 4, 8, 16, 32, 64]
    maps = model(torch.empty(1, 1, 128, 192, device="meta"))
    sizes = [(64, 96), (32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    channels = (16, 32, 64, 128, 256, 384)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (c, *size) for c, size in zip(channels, sizes, strict=True)
    ]
    four = timm.create_model("lsnet_t", device="meta", features_only=True, out_indices=(2, 3, 4, 5))
    assert four.feature_info.reduction() == [8, 16, 32, 64]


def test_weight_tags_and_weight_decay():
    names = seewide.list_models("lsnet*", pretrained=True)
    assert names == sorted(f"lsnet_{s}{d}.in1k" for s in "tsb" for d in ("", "_distill"))
    model = small()
    excluded = model.no_weight_decay()
    assert excluded == {"stages.5.blocks.1.mixer.layer.attention_biases"}
    assert excluded <= {name for name, _ in model.named_parameters()}


def test_bad_arguments_are_sentences():
    with pytest.raises(TypeError, match="fuse_now"):
        timm.create_model("lsnet_t", device="meta", fuse_now=True)
    with pytest.raises(seewide.InputError, match="need 4 entries each, got"):
        LSNet(depths=(1, 1, 1))
    with pytest.raises(seewide.InputError, match="group_width must divide dim=16, got group_wid"):
        small(group_width=5)
    with pytest.raises(seewide.InputError, match="small_kernel must be odd, got small_kernel=4"):
        small(small_kernel=4)
    with pytest.raises(seewide.InputError, match="num_heads must divide dim=32, got num_heads=5"):
        small(num_heads=5)
    with pytest.raises(seewide.InputError, match="set global_pool='avg'"):
        small(global_pool="")(torch.randn(2, 3, 64, 64))
