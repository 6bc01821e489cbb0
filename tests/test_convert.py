"""Checkpoints cross between the authors' layout and ours, tensor for tensor."""

import argparse
import itertools
import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

import seewide
from seewide.checkpoints import authors_state_dict, convert, identify
from seewide.checkpoints.integrity import CHECKSUM
from seewide.models import FAMILIES
from seewide.testing import randomize

# A written-down sample of the authors' keys and ours, for machines without ../shared.
SAMPLES = {
    "unireplknet": {
        "downsample_layers.0.4.bias": "stem.4.bias",
        "downsample_layers.3.0.weight": "stages.3.downsample.0.weight",
        "stages.1.0.dwconv.lk_origin.weight": "stages.1.blocks.0.dwconv.large.conv.weight",
        "stages.1.0.dwconv.origin_bn.num_batches_tracked": (
            "stages.1.blocks.0.dwconv.large.norm.num_batches_tracked"
        ),
        "stages.1.0.dwconv.dil_bn_k7_2.bias": "stages.1.blocks.0.dwconv.small.k7_d2.norm.bias",
        "stages.1.0.act.1.beta": "stages.1.blocks.0.grn.bias",
        "stages.0.1.dwconv.weight": "stages.0.blocks.1.dwconv.weight",
        "norm.weight": "head.norm.weight",
        "head.bias": "head.fc.bias",
    },
    "lsnet": {
        "patch_embed.4.bn.weight": "stages.2.downsample.norm.weight",
        "blocks1.1.mixer.lkp.cv4.weight": "stages.2.blocks.1.mixer.to_weight.weight",
        "blocks2.1.c.weight": "stages.3.downsample.1.conv.weight",
        "blocks3.2.mixer.conv.c.weight": "stages.4.blocks.0.dw.square.conv.weight",
        "blocks4.3.mixer.m.proj.1.bn.bias": "stages.5.blocks.1.mixer.layer.proj.norm.bias",
        "blocks4.11.ffn.m.pw2.c.weight": "stages.5.blocks.9.ffn.layer.project.conv.weight",
        "head.bn.running_var": "head.fc.norm.running_var",
        "head_dist.l.weight": "head.fc_dist.linear.weight",
    },
    "replknet": {
        "stem.3.bn.bias": "stem.6.norm.bias",
        "transitions.1.1.conv.weight": "stages.2.downsample.2.conv.weight",
        "stages.2.blocks.14.prelkb_bn.weight": "stages.2.blocks.14.pw1.norm0.weight",
        "stages.2.blocks.15.preffn_bn.weight": "stages.2.blocks.15.pw1.norm0.weight",
        "stages.0.blocks.0.large_kernel.lkb_origin.conv.weight": (
            "stages.0.blocks.0.dwconv.large.conv.weight"
        ),
        "stages.0.blocks.0.large_kernel.small_conv.conv.weight": (
            "stages.0.blocks.0.dwconv.small.k3_d1.conv.weight"
        ),
        "stages.0.blocks.0.large_kernel.small_conv.bn.bias": (
            "stages.0.blocks.0.dwconv.small.k3_d1.norm.bias"
        ),
        "norm.running_mean": "head.norm.running_mean",
        "head.weight": "head.fc.weight",
    },
    "slak": {
        "downsample_layers.2.1.bias": "stages.2.downsample.1.bias",
        "stages.1.2.gamma": "stages.1.blocks.2.fc2.gamma",
        "stages.1.2.large_kernel.LoRA1.conv.weight": "stages.1.blocks.2.mixer.vertical.conv.weight",
        "stages.1.2.large_kernel.LoRA2.bn.bias": "stages.1.blocks.2.mixer.horizontal.norm.bias",
        "stages.1.2.large_kernel.small_conv.bn.weight": "stages.1.blocks.2.mixer.small.norm.weight",
        "stages.1.2.pwconv2.bias": "stages.1.blocks.2.fc2.bias",
        "head.weight": "head.fc.weight",
    },
    "uniconvnet": {
        "stages.2.14.attn.norm1.weight": "stages.2.blocks.14.rfa.norm.weight",
        "stages.2.14.attn.norm3.weight": "stages.2.blocks.14.rfa.layers.2.norm.weight",
        "stages.2.14.attn.v21.bias": "stages.2.blocks.14.rfa.layers.1.product_proj.bias",
        "stages.2.14.attn.conv3_3.weight": "stages.2.blocks.14.rfa.layers.2.part_conv.1.weight",
        "stages.2.14.norm1.0.bias": "stages.2.blocks.14.norm1.bias",
        "stages.2.14.layer_scale": "stages.2.blocks.14.gamma_rfa",
        "stages.2.14.gamma2": "stages.2.blocks.14.gamma_mlp",
        "norm.bias": "head.norm.bias",
    },
}
TELLTALES = {"lsnet": "patch_embed.0.c.weight", "replknet": "stem.1.conv.weight"}
FAMILY = {family.__name__.rpartition(".")[2]: family for family in FAMILIES}


def variants(parity, name):
    """(variant, which keys, state dict of the authors' keys) of a file in ../shared/parity."""
    generator = torch.Generator().manual_seed(0)
    for variant, figures in json.loads((parity / f"{name}.json").read_text()).items():
        for which in sorted({"keys", "deploy_keys"} & figures.keys()):
            entries = figures[which].items()
            yield variant, which, {k: entry(k, *v, generator) for k, v in entries}


def entry(key, shape, dtype, generator):
    """One number of its own per tensor, over the whole shape without its memory."""
    if key.endswith("attention_bias_idxs"):
        return distances(round(shape[0] ** 0.5))
    value = torch.randint(1 << 24, (), generator=generator)
    return value.to(getattr(torch, dtype)).expand(shape)


def distances(side):
    """LeViT's table: each pair of pixels has the number of its |dy|, |dx|, counted as met."""
    pixels, numbers = list(itertools.product(range(side), repeat=2)), {}
    return torch.tensor(
        [
            [numbers.setdefault((abs(a - c), abs(b - d)), len(numbers)) for c, d in pixels]
            for a, b in pixels
        ]
    )


@pytest.mark.parametrize("family", ["unireplknet", "lsnet", "replknet", "slak", "uniconvnet"])
def test_every_key_of_the_authors_goes_and_comes_back(parity, family):
    module = FAMILY[family]
    for variant, which, theirs in variants(parity, family):
        ours = module.checkpoint_filter_fn(theirs, nn.Module())
        back = module.authors_state_dict(ours)
        assert back.keys() == theirs.keys(), (variant, which)
        for key, value in theirs.items():
            assert back[key].dtype == value.dtype
            assert torch.equal(back[key], value), (variant, which, key)


@pytest.mark.parametrize("family", SAMPLES)
def test_networks_are_known_by_keys_and_shapes(parity, family):
    """The first and the last variant of each family; the hint only saves time."""
    every = list(variants(parity, family))
    for variant, which, theirs in (every[0], every[-1]):
        name = f"{family}_{variant[0] if family == 'slak' else variant}"
        found = identify({k: v.to("meta") for k, v in theirs.items()}, hint=name)
        form = "training" if which == "keys" else "fused"
        assert (found.model, found.form, found.layout) == (name, form, "authors")


@pytest.mark.parametrize("family", SAMPLES)
def test_written_down_keys(family):
    theirs = {key: torch.empty(1, 1, 3, 3) for key in SAMPLES[family]}
    theirs[TELLTALES.get(family, "downsample_layers.0.0.weight")] = torch.empty(1, 1, 3, 3)
    ours = FAMILY[family].checkpoint_filter_fn(theirs, nn.Module())
    for key, want in SAMPLES[family].items():
        assert ours[want] is theirs[key]
    assert FAMILY[family].authors_state_dict(ours).keys() == theirs.keys()


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return randomize(timm.create_model("unireplknet_a", num_classes=7, in_chans=1))


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.mark.parametrize("form", ["training", "fused"])
def test_files_there_and_back(tmp_path, model, form):
    net = model if form == "training" else seewide.fuse(model)
    theirs = FAMILY["unireplknet"].authors_state_dict(net.state_dict())
    shuffled = dict(sorted(theirs.items(), reverse=True))
    source = tmp_path / "anything.pth"
    torch.save({"model": shuffled, "args": argparse.Namespace(lr=4e-3)}, source)

    report = convert(source, tmp_path / "a.safetensors")
    assert same(load_file(tmp_path / "a.safetensors"), net.state_dict())
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        header = file.metadata()
    assert len(header.pop(CHECKSUM)) == 64
    assert header == report.provenance
    assert header["architecture"] == "unireplknet_a"
    assert header["form"] == form
    assert header["source_file"] == "anything.pth"
    assert header["source_layout"] == "authors"
    assert len(header["source_sha256"]) == 64

    convert(tmp_path / "a.safetensors", tmp_path / "b.pth", to="authors")
    content = torch.load(tmp_path / "b.pth", weights_only=True)
    assert content.keys() == {"model"}
    assert same(content["model"], theirs)
    blank = timm.create_model("unireplknet_a", num_classes=7, in_chans=1)
    if form == "fused":
        blank = seewide.fuse(blank)
    for file in ("a.safetensors", "b.pth"):
        assert same(seewide.load_checkpoint(blank, tmp_path / file).state_dict(), net.state_dict())


def test_the_header_of_a_run_stays(tmp_path, model):
    from safetensors.torch import save_file

    save_file(model.state_dict(), tmp_path / "best.safetensors", metadata={"top1": "83.2"})
    convert(tmp_path / "best.safetensors", tmp_path / "out.safetensors")
    with safe_open(tmp_path / "out.safetensors", "pt") as file:
        header = file.metadata()
    assert header["top1"] == "83.2"
    assert header["source_layout"] == "seewide"


def test_sizes_are_told_apart():
    for name in ("unireplknet_f", "unireplknet_s"):  # as deep as A, as deep as B, L and XL
        state = timm.create_model(name, device="meta").state_dict()
        found = identify(state, hint="unireplknet_a unireplknet_b")
        assert (found.model, found.form, found.layout) == (name, "training", "seewide")


def refused(pattern, *args, **kwargs):
    with pytest.raises(seewide.InputError, match=pattern) as caught:
        convert(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_refusals(tmp_path, model):
    source, out = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(model.state_dict(), source)
    refused("ends in .safetensors, got .*net.pth", source, source)
    refused("ends in .pth or .pt, got .*net.safetensors", source, out, to="authors")
    refused("unknown layout 'onnx'; known are authors, seewide", source, out, to="onnx")
    refused("unknown model 'unireplknet_aa'; did you", source, out, model="unireplknet_aa")
    refused("there is no checkpoint file", tmp_path / "none.pth", out)
    refused(r"does not fit unireplknet_f: .* has shape \(", source, out, model="unireplknet_f")
    refused("does not fit slak_t: missing", source, out, model="slak_t")
    torch.save({"conv.weight": torch.zeros(3)}, source)
    refused("does not have the keys and shapes of any of the", source, out)
    assert not out.exists()


def test_forms_that_the_authors_do_not_have():
    state = timm.create_model("pelk_t", device="meta").state_dict()
    with pytest.raises(seewide.InputError, match="a training pelk_t: no code was published"):
        authors_state_dict(identify(state, hint="pelk_t"))
    state = seewide.fuse(timm.create_model("slak_t", device="meta")).state_dict()
    with pytest.raises(seewide.InputError, match="a fused slak_t: only for training models"):
        authors_state_dict(identify(state, hint="slak_t"))


def test_the_command(command, tmp_path, model):
    source, out = tmp_path / "net.pth", tmp_path / "net.safetensors"
    torch.save(model.state_dict(), source)
    result = command("convert", source, out)
    assert result.exit_code == 0, result.stderr
    assert "a training unireplknet_a" in result.stdout
    assert same(load_file(out), model.state_dict())
    result = command("convert", source, tmp_path / "net.onnx")
    assert result.exit_code == 2
    assert result.stderr.startswith("seewide: a file in the layout of seewide ends in .safetensors")
