"""Checkpoint files: plain data is accepted, damage is noticed, memory is bounded."""

import collections
import io
import json
import pathlib
import pickle
import random
import struct
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import seewide
from seewide.checkpoints import (
    checksum,
    convert,
    differences,
    identify,
    read_metadata,
    read_state_dict,
    save_safetensors,
    unwrap,
    verify,
    with_checksum,
    without_checksum,
)
from seewide.checkpoints.integrity import CHECKSUM
from seewide.errors import InputError


def weights():
    generator = torch.Generator().manual_seed(0)
    return {
        "a.weight": torch.randn(4, 3, generator=generator),
        "a.bias": torch.randn(4, generator=generator).bfloat16(),
        "steps": torch.tensor(7),
    }


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(v, b[k]) for k, v in a.items())


def refused(sentence, function, *args, **kwargs):
    with pytest.raises(InputError, match=sentence) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)


PLAIN = {
    "float64": (np.float64(0.25), 0.25),
    "float32": (np.float32(0.5), 0.5),
    "int64": (np.int64(-3), -3),
    "bool": (np.bool_(True), True),
    "str": (np.str_("name"), "name"),
    "path": (pathlib.PurePosixPath("runs/a"), pathlib.PurePosixPath("runs/a")),
    "windows": (pathlib.PureWindowsPath("c:/a"), pathlib.PureWindowsPath("c:/a")),
    "defaultdict": (collections.defaultdict(list, a=[1, 2]), {"a": [1, 2]}),
    "counts": (collections.defaultdict(int, a=1), {"a": 1}),
    "counter": (collections.Counter("aab"), {"a": 2, "b": 1}),
}


@pytest.mark.parametrize("name", PLAIN)
def test_plain_data_beside_the_weights_is_read(tmp_path, name):
    value, want = PLAIN[name]
    torch.save({"model": weights(), "extra": {"deep": [value]}}, tmp_path / "a.pth")
    content = read_state_dict(tmp_path / "a.pth")
    assert content["extra"]["deep"][0] == want
    assert same(unwrap(content), weights())


def test_numpy_arrays_beside_the_weights_are_left_out(tmp_path):
    torch.save({"model": weights(), "rng": np.arange(4)}, tmp_path / "a.pth")
    assert same(unwrap(read_state_dict(tmp_path / "a.pth")), weights())


@pytest.mark.parametrize("prefix", ["_orig_mod.", "module.", "module._orig_mod.", "module.module."])
def test_prefixes_of_wrappers_are_removed(prefix):
    state = {prefix + key: value for key, value in weights().items()}
    assert same(unwrap({"state_dict": state}), weights())


def test_averaged_models_lose_their_counter():
    state = {f"module.{key}": value for key, value in weights().items()}
    assert same(unwrap({**state, "n_averaged": torch.tensor(3)}), weights())


def test_the_prefix_of_a_compiled_block_is_removed():
    assert unwrap({"stages.0._orig_mod.w": torch.ones(1)}).keys() == {"stages.0.w"}


def test_pickles_of_other_programs_are_not_accused_of_code(tmp_path):
    """The opcode of protocol 4's frames, 149, was once named as code."""
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps({"lr": 0.1}, protocol=4))
    refused("protocol 4 or later", read_state_dict, path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "a.pt")
    refused("is a TorchScript program, not a checkpoint", read_state_dict, tmp_path / "a.pt")
    path = tmp_path / "a.onnx"
    path.write_bytes(b"anything")
    refused("is an ONNX model, not a checkpoint; .*load_exported", read_state_dict, path)


class Custom:
    pass


def test_objects_of_other_classes_are_named(tmp_path):
    torch.save({"model": weights(), "x": Custom()}, tmp_path / "a.pth")
    refused(
        r"was refused: it holds \S*test_checkpoints.Custom, and building anything but tensors",
        read_state_dict, tmp_path / "a.pth",
    )  # fmt: skip


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path):
    import resource

    with zipfile.ZipFile(tmp_path / "bomb.pth", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/data.pkl", pickle.dumps({"w": 1}, protocol=2))
        with archive.open("a/data/0", "w") as entry:
            for _ in range(300):
                entry.write(bytes(1 << 20))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(r"0.3 MB unpack to 31\d\.\d MB", read_state_dict, tmp_path / "bomb.pth")
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 50_000, f"{grown / 1000:.0f} MB more at the peak"


@pytest.mark.parametrize("source", [None, 3, ["a.pth"]])
def test_sources_of_other_types_are_refused(source):
    refused(
        "source must be a path or a state dict", seewide.load_checkpoint, nn.Linear(1, 1), source
    )


@pytest.mark.parametrize("path", ["a\0b.pth", "x" * 5000, ".", ""])
def test_paths_that_are_no_files(path):
    refused("no checkpoint file|no path of", seewide.load_checkpoint, nn.Linear(1, 1), path)


def test_a_dict_that_contains_itself():
    content = {"epoch": 3}
    content["model"] = content
    refused("contains itself", unwrap, content)
    refused("contains itself", checksum, content)


def test_complex_weights_are_refused_not_cut():
    model = nn.Linear(3, 4)
    state = {k: v.to(torch.complex64) for k, v in model.state_dict().items()}
    with warnings.catch_warnings(record=True) as caught:
        refused(
            "bias is complex .*imaginary part would be lost", seewide.load_checkpoint, model, state
        )
    assert not caught
    assert differences(state, state) == []


def test_sparse_weights_are_refused():
    model = nn.Linear(3, 4)
    state = {**model.state_dict(), "weight": torch.eye(4, 3).to_sparse()}
    refused("weight is stored as .*sparse_coo", seewide.load_checkpoint, model, state)


@pytest.mark.parametrize("shape", [(), (0,), (3,), (1, 0), (2, 2, 2, 2, 2)])
@pytest.mark.parametrize("model", ["unireplknet_a", "lsnet_t"])
def test_converting_tensors_of_odd_shapes_is_one_sentence(model, shape):
    net = seewide.create_model(model, device="meta", num_classes=2)
    state = {key: torch.zeros(shape) for key in net.state_dict()}
    refused("does not (fit|have the keys and shapes of)", identify, state, model=model)
    theirs = {key: torch.zeros(shape) for key in AUTHORS_KEYS}
    refused("does not (fit|have the keys and shapes of)", identify, theirs, model=model)


AUTHORS_KEYS = (
    "patch_embed.0.c.weight", "head.l.weight", "blocks4.0.mixer.m.attention_biases",
    "stem.0.weight", "downsample_layers.0.0.weight", "stages.0.0.dwconv.lk_origin.weight",
)  # fmt: skip


def test_loading_tensors_of_odd_shapes_is_one_sentence():
    model = seewide.create_model("lsnet_t", num_classes=2)
    state = {k: torch.zeros(()) for k in model.state_dict()}
    refused("does not fit LSNet", seewide.load_checkpoint, model, state)


# Integrity.


def test_safetensors_carry_a_checksum_of_tensors_and_metadata(tmp_path):
    state = weights()
    state["tied"] = state["a.weight"]
    state["view"] = state["a.weight"][1:3]
    path = save_safetensors(tmp_path / "a.safetensors", state, {"classes": "cat,dog"})
    header = read_metadata(path)
    assert header["classes"] == "cat,dog"
    assert len(header[CHECKSUM]) == 64
    assert same(read_state_dict(path), state)
    assert same(load_file(path), state), "other readers need not know"
    assert "its checksum matches" in verify(path)


def test_every_flipped_bit_in_the_tensors_is_noticed(tmp_path):
    path = save_safetensors(tmp_path / "a.safetensors", weights(), {"classes": "cat,dog"})
    content = path.read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    for position in range(start, len(content)):
        flipped = bytearray(content)
        flipped[position] ^= 1 << (position % 8)
        path.write_bytes(flipped)
        refused("is damaged: its content has the checksum", read_state_dict, path)
    path.write_bytes(content.replace(b"cat,dog", b"cat,dig"))
    refused("is damaged: its content has the checksum", read_state_dict, path)


def mutations(content, count, seed):
    """Bit flips, byte changes, cuts, insertions and swapped pieces of a file."""
    rng = random.Random(seed)
    for _ in range(count):
        data, at = bytearray(content), rng.randrange(len(content))
        kind = rng.randrange(5)
        if kind == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            data[at] = rng.randrange(256)
        elif kind == 2:
            del data[at : at + rng.choice([1, 4, 64, len(data)])]
        elif kind == 3:
            data[at:at] = rng.randbytes(rng.choice([1, 4, 64]))
        else:
            other = rng.randrange(len(content))
            data[at : at + 8] = content[other : other + 8]
        yield bytes(data)


def same_or_refused(path, want):
    """A mutated file gives a sentence or what was written."""
    sentence, got = None, {}
    try:
        got = unwrap(read_state_dict(path))
    except InputError as error:
        sentence = str(error)
    if sentence is not None:
        assert sentence.isprintable()
        return False
    assert same({k: v for k, v in got.items() if k in want}, want)
    return True


def saved(kind, path):
    if kind == "safetensors":
        save_safetensors(path, weights(), {"classes": "cat,dog"})
    elif kind == "torch":
        torch.save(with_checksum({"model": weights(), "epoch": 3, "name": "a"}), path)
    else:
        torch.save(with_checksum(weights()), path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
def test_mutated_files_give_a_sentence_or_the_same_tensors(tmp_path, kind):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    saved(kind, path)
    content, want = path.read_bytes(), weights()
    assert same_or_refused(path, want)
    outcomes = collections.Counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for data in mutations(content, 400, seed=1):
            path.write_bytes(data)
            outcomes[same_or_refused(path, want)] += 1
    assert outcomes[False] > 200, outcomes


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["safetensors", "torch", "legacy"])
def test_every_byte_of_a_file_mutated(tmp_path, kind):
    path = tmp_path / ("a.safetensors" if kind == "safetensors" else "a.pth")
    saved(kind, path)
    content, want = path.read_bytes(), weights()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for position in range(len(content)):
            for value in (0, 255, content[position] ^ 1, content[position] ^ 128):
                data = bytearray(content)
                data[position] = value
                path.write_bytes(data)
                same_or_refused(path, want)


def test_checksum_depends_on_everything_but_strides_and_order():
    base = {"w": torch.arange(6.0).reshape(2, 3), "n": 1, "t": ("a", None, 0.5)}
    reordered = {"t": ["a", None, 0.5], "n": 1, "w": torch.arange(6.0).reshape(2, 3).T.clone().T}
    assert checksum(base) == checksum(reordered)
    others = [
        {**base, "n": 2},
        {**base, "n": True},
        {**base, "t": ("a", None, "0.5")},
        {**base, "w": base["w"].reshape(3, 2)},
        {**base, "w": base["w"].double()},
        {**base, "w": base["w"] + torch.tensor([0, 0, 1e-6])},
        {"v": base["w"], "n": 1, "t": base["t"]},
    ]
    found = {checksum(other) for other in others}
    assert len(found) == len(others)
    assert checksum(base) not in found
    refused("no checksum of a Custom", checksum, {"x": Custom()})


def test_checksums_of_dicts():
    sealed = with_checksum({"epoch": 3, "model": weights()})
    assert without_checksum(sealed, "last.pt").keys() == {"epoch", "model"}
    assert without_checksum({"epoch": 3}) == {"epoch": 3}, "older files have none"
    refused("last.pt is damaged: its content", without_checksum, {**sealed, "epoch": 4}, "last.pt")


def test_a_converted_file_has_a_checksum_of_its_own(tmp_path):
    model = seewide.create_model("unireplknet_a", num_classes=2)
    save_safetensors(tmp_path / "a.safetensors", model.state_dict(), {"top1": "83.2"})
    convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
    a, b = read_metadata(tmp_path / "a.safetensors"), read_metadata(tmp_path / "b.safetensors")
    assert b["top1"] == "83.2"
    assert a[CHECKSUM] != b[CHECKSUM]
    assert "its checksum matches" in verify(tmp_path / "b.safetensors")


def test_a_file_without_a_checksum_is_read(tmp_path):
    from safetensors.torch import save_file

    save_file(weights(), tmp_path / "a.safetensors")
    assert same(read_state_dict(tmp_path / "a.safetensors"), weights())
    assert "has no checksum" in verify(tmp_path / "a.safetensors")
    buffer = io.BytesIO()
    torch.save(weights(), buffer)
    (tmp_path / "a.pth").write_bytes(buffer.getvalue())
    assert "its checksum matches" in verify(tmp_path / "a.pth")


def test_a_header_that_is_deeply_nested_is_one_sentence(tmp_path):
    header = json.dumps({"__metadata__": {}}).encode()[:-1] + b',"a":' + b"[" * 5000 + b"}"
    (tmp_path / "a.safetensors").write_bytes(struct.pack("<Q", len(header)) + header)
    refused("is damaged", read_state_dict, tmp_path / "a.safetensors")
