"""Loading is safe, complete, or leaves everything as it was."""

import argparse
import os

import pytest
import torch
from safetensors.torch import save_file

import seewide
from seewide.errors import InputError
from seewide.models.unireplknet import UniRepLKNet


def net(**kwargs):
    sizes = {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 8), "kernel_sizes": (3, 7, 3, 7)}
    return UniRepLKNet(**sizes, num_classes=4, **kwargs)


def same(a, b):
    return all(torch.equal(v, b[k]) for k, v in a.items())


@pytest.mark.parametrize("wrapper", ["model", "state_dict", None])
def test_files_of_training_scripts(tmp_path, wrapper):
    """As the authors' scripts write them: wrapped, with an argparse.Namespace beside."""
    state = net().state_dict()
    content = {wrapper: state, "args": argparse.Namespace(lr=4e-3)} if wrapper else state
    torch.save(content, tmp_path / "net.pth")
    loaded = seewide.load_checkpoint(net(), tmp_path / "net.pth")
    assert same(state, loaded.state_dict())


def test_safetensors_and_module_prefix(tmp_path):
    state = net().state_dict()
    save_file(state, tmp_path / "net.safetensors")
    assert same(state, seewide.load_checkpoint(net(), tmp_path / "net.safetensors").state_dict())
    prefixed = {f"module.{k}": v for k, v in state.items()}
    assert same(state, seewide.load_checkpoint(net(), prefixed).state_dict())


def refused(source, sentence):
    model = net()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(InputError, match=sentence) as caught:
        seewide.load_checkpoint(model, source)
    assert "\n" not in str(caught.value)
    assert same(before, model.state_dict())


def test_missing_and_unexpected_keys_are_named():
    state = net().state_dict()
    state["extra.weight"] = torch.zeros(1)
    del state["stem.0.weight"]
    refused(state, r"missing stem.0.weight; unexpected extra.weight$")


def test_shapes_are_named():
    state = net().state_dict()
    state["head.fc.weight"] = torch.zeros(5, 8)
    refused(state, r"head.fc.weight has shape \(5, 8\), not \(4, 8\)")


def test_no_file(tmp_path):
    refused(tmp_path / "none.pth", "there is no checkpoint file .*none.pth")


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("keep", [0, 10, 1000, -1])
def test_cut_files(tmp_path, suffix, keep):
    path = tmp_path / f"cut{suffix}"
    if suffix == ".pth":
        torch.save(net().state_dict(), path)
    else:
        save_file(net().state_dict(), path)
    path.write_bytes(path.read_bytes()[:keep])
    refused(path, "cut.* is damaged or is no checkpoint")


class Evil:
    def __reduce__(self):
        return os.system, ("touch evil",)


def test_a_pickle_with_code_is_refused_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.save({"model": net().state_dict(), "hook": Evil()}, "evil.pth")
    refused("evil.pth", "was refused: it holds posix.system, and building anything but tensors")
    assert not (tmp_path / "evil").exists()


def test_files_without_tensors(tmp_path):
    torch.save({"epoch": 3}, tmp_path / "a.pth")
    refused(tmp_path / "a.pth", "no tensors in the checkpoint; its keys are epoch")
    torch.save([1, 2], tmp_path / "b.pth")
    refused(tmp_path / "b.pth", "holds a list, not a dict of tensors")
