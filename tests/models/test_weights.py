"""Published weights come from the hub, or a sentence says why not.

Against a local server that behaves like the hub, with files of the authors' layout.
"""

import argparse
import hashlib
import io
import os
import re

import pytest
import timm
import torch
from hub import Hub
from huggingface_hub import constants

import seewide
from seewide.checkpoints import rename
from seewide.models import lsnet, replknet, uniconvnet
from seewide.models.unireplknet import authors_state_dict
from seewide.testing import randomize

NAME = "unireplknet_a.in1k"
FILE = "unireplknet_a_in1k_224_acc77.03.pth"
REMOTE = f"DingXiaoH/UniRepLKNet/{FILE}"
SIZES = {"depths": (1, 1, 2, 1), "dims": (8, 16, 24, 32), "kernel_sizes": (3, 13, (13, 3), 7)}


def net(**kwargs):
    return timm.create_model(NAME, **SIZES, **kwargs)


def file_of(model, **beside) -> bytes:
    """As the authors' training script writes it."""
    content = {"model": authors_state_dict(model.state_dict()), "args": argparse.Namespace(lr=4e-3)}
    buffer = io.BytesIO()
    torch.save({**content, **beside}, buffer)
    return buffer.getvalue()


@pytest.fixture(scope="module")
def published():
    torch.manual_seed(1)
    return net()


@pytest.fixture
def hub(published, monkeypatch):
    with Hub({REMOTE: file_of(published)}) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        template = hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        yield hub


@pytest.fixture
def pretrained(hub, tmp_path):
    """Create the network with its published weights; the cache is this test's."""
    return lambda **kwargs: net(pretrained=True, cache_dir=tmp_path, **kwargs)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def refused(create, pattern):
    with pytest.raises(seewide.InputError, match=pattern) as caught:
        create()
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_download_once_then_from_the_cache(hub, pretrained, published, monkeypatch, capfd):
    assert same(pretrained(), published)
    content = hub.files[REMOTE]
    shown = f"{FILE}: {len(content):,} bytes, SHA-256 {hashlib.sha256(content).hexdigest()} (as"
    assert shown in capfd.readouterr().err
    assert same(pretrained(), published)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert same(pretrained(), published)
    assert hub.gets == [(REMOTE, None)]
    assert "SHA-256" not in capfd.readouterr().err


def test_other_heads_inputs_and_features(pretrained, published):
    ten = pretrained(num_classes=10, in_chans=1)
    want = published.state_dict()
    for key, value in ten.state_dict().items():
        if key == "stem.0.weight":
            torch.testing.assert_close(value, want[key].sum(1, keepdim=True))
        elif not key.startswith("head.fc"):
            assert torch.equal(value, want[key]), key
    assert ten.head.fc.weight.shape == (10, 32)
    features = pretrained(features_only=True).state_dict()
    assert torch.equal(features["stem_0.weight"], want["stem.0.weight"])
    assert "state_dict" not in ten.pretrained_cfg


def test_a_broken_connection_goes_on_where_it_broke(hub, pretrained, published, monkeypatch):
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)
    hub.breaks = [70_500]
    assert same(pretrained(), published)
    (_, first), (_, second) = hub.gets
    assert first is None
    assert 60_000 < int(re.fullmatch(r"bytes=(\d+)-", second)[1]) <= 70_500


def test_a_wrong_hash_is_named_and_the_file_deleted(hub, pretrained, published):
    content = hub.files[REMOTE]
    hub.etags[REMOTE] = hashlib.sha256(content).hexdigest()
    hub.files[REMOTE] = content[:-100]
    sentence = refused(pretrained, f"{FILE} for {NAME} is corrupt: its SHA-256 is")
    assert hub.etags[REMOTE] in sentence
    hub.files[REMOTE] = content
    assert same(pretrained(), published)


def test_a_cut_file_without_a_published_hash(hub, pretrained):
    hub.files[REMOTE] = hub.files[REMOTE][:-100]
    hub.etags[REMOTE] = "2" * 40  # a git hash, as small files have
    refused(pretrained, "is damaged or is no checkpoint.*; delete that file to download it again")


@pytest.mark.parametrize(
    ("left", "pattern"),
    [
        ({"DingXiaoH/UniRepLKNet/else": b""}, f"^{FILE}, the weights of {NAME}, is not in Ding"),
        ({}, f"^{FILE}, the weights of {NAME}, has no repository DingXiaoH/UniRepLKNet"),
    ],
)
def test_missing_files_and_repositories(hub, pretrained, left, pattern):
    hub.files = left
    assert "seewide.load_checkpoint" in refused(pretrained, pattern)


def test_offline_without_the_file(pretrained, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    refused(pretrained, f"^{FILE}, the weights of {NAME}, is not in the cache and http.* cannot be")


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_file_with_code_is_refused_and_not_run(hub, pretrained, published, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.files[REMOTE] = file_of(published, hook=Evil())
    refused(pretrained, "was refused: it holds posix.system, and building anything but tensors")
    assert not (tmp_path / "evil").exists()


def test_weights_of_another_network(hub, pretrained):
    sizes = {**SIZES, "dims": (8, 16, 24, 40)}
    hub.files[REMOTE] = file_of(timm.create_model(NAME, **sizes))
    refused(pretrained, f"^{FILE} does not fit {NAME}: .*stages.3.downsample.0.weight")


def test_plain_addresses(hub, pretrained, published):
    digits = hashlib.sha256(hub.files[REMOTE]).hexdigest()[:8]
    for name in (f"net-{digits}.pth", "net-00000000.pth", "net.pth"):
        hub.files[f"{name}/"] = hub.files[REMOTE]  # the key under which the server finds "/name"

    def at(name):
        overlay = {"url": f"{hub.url}/{name}", "hf_hub_id": None}
        return pretrained(pretrained_cfg_overlay=overlay)

    assert same(at(f"net-{digits}.pth"), published)
    assert same(at("net.pth"), published)
    refused(lambda: at("net-00000000.pth"), "net-00000000.pth .* published is 00000000; it was del")
    refused(lambda: at("none.pth"), f"the weights of {NAME} could not be downloaded from http")
    downloads = len(hub.gets)
    assert same(at(f"net-{digits}.pth"), published)
    assert len(hub.gets) == downloads


FAMILIES = {
    "lsnet_t": (lsnet, {"depths": (0, 1, 2, 2), "dims": (16, 32, 48, 64)}),
    "lsnet_t_distill": (lsnet, {"depths": (1, 1, 1, 2), "dims": (16, 32, 48, 64)}),
    "uniconvnet_a": (uniconvnet, {"depths": (1, 1, 1, 1), "dims": (16, 24, 32, 40)}),
    "replknet_31b": (
        replknet,
        {"depths": (1, 1, 1, 1), "dims": (8, 16, 24, 32), "kernel_sizes": (9, 9, 7, 7)},
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_with_an_address(hub, name, tmp_path):
    family, sizes = FAMILIES[name]
    model = randomize(timm.create_model(name, **sizes))
    config = model.pretrained_cfg
    buffer = io.BytesIO()
    theirs = family.authors_state_dict(model.state_dict())
    overlay = {}
    if "hf_hub_id" in config:
        torch.save({"model": theirs}, buffer)
        hub.files[f"{config['hf_hub_id']}/{config['hf_hub_filename']}"] = buffer.getvalue()
    else:  # mmpretrain's copies, with their prefixes and the norm in the last stage
        renamed = [(r"^norm\.", "backbone.stages.3.norm."), (r"^head\.", "head.fc.")]
        state = rename(theirs, [*renamed, (r"^", "backbone.")])
        torch.save({"meta": {"epoch": 1}, "state_dict": state}, buffer)
        file = config["url"].rpartition("/")[2]
        digits = hashlib.sha256(buffer.getvalue()).hexdigest()[:8]
        file = re.sub(r"-[0-9a-f]{8}\.", f"-{digits}.", file)
        hub.files[f"{file}/"] = buffer.getvalue()
        overlay["url"] = f"{hub.url}/{file}"
    got = timm.create_model(
        name, pretrained=True, cache_dir=tmp_path, pretrained_cfg_overlay=overlay, **sizes
    )
    assert same(got, model)
    assert len(hub.gets) == 1


def test_a_file_of_the_users(hub, pretrained, published, tmp_path):
    path = tmp_path / "mine.pth"
    path.write_bytes(hub.files[REMOTE])
    assert same(pretrained(pretrained_cfg_overlay={"file": str(path)}), published)
    assert not hub.gets


def test_unknown_tags_and_networks_without_weights():
    refused(lambda: timm.create_model("unireplknet_a.in22k"), "unknown weight tag of unireplknet_a")
    refused(
        lambda: timm.create_model("unireplknet_h", pretrained=True, **SIZES),
        "^no weights of unireplknet_h are published at an address",
    )


def test_the_command_says_the_sentence(command, hub, monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    result = command("eval", NAME, "--data", "digits", "--out", tmp_path)
    assert result.exit_code == 2
    assert f"seewide: {FILE}, the weights of {NAME}, is not in the cache" in result.stderr
    assert "Traceback" not in result.stderr
