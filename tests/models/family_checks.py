"""Checks that every family passes; a family's test file says on what."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import timm
import torch
from timm.models import reparameterize_model
from torch import nn

import seewide
from seewide.export import export_model
from seewide.reparam import fuse_checked
from seewide.testing import deviation, randomize


def load_fill(parity: Path) -> ModuleType:
    """`fill.py` beside the figures: the deterministic weights and picture they were made with."""
    spec = importlib.util.spec_from_file_location("fill", parity / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def load_authors_weights(parity: Path, family: str, variant: str, name: str) -> nn.Module:
    """The network, in evaluation mode, with the weights of the figures, by the authors' keys."""
    keys = json.loads((parity / f"{family}.json").read_text())[variant]["keys"]
    shapes = {key: tuple(shape) for key, (shape, dtype) in keys.items() if dtype == "float32"}
    state = load_fill(parity).fill(shapes)
    state |= {k: torch.zeros(s, dtype=torch.int64) for k, (s, d) in keys.items() if d == "int64"}
    return seewide.load_checkpoint(timm.create_model(name), state).eval()


def check_parity(parity: Path, family: str, variant: str, name: str, limit: float = 1e-5) -> None:
    """Stages and logits of both forms equal what the authors' code computed, on their keys."""
    model = load_authors_weights(parity, family, variant, name)
    image = load_fill(parity).image()
    want = np.load(parity / f"{family}.{variant}.npz")
    for form in (model, seewide.fuse(model)):
        with torch.no_grad():
            last, features = form.forward_intermediates(image)
            logits = form.forward_head(last)
        assert deviation(logits, torch.from_numpy(want["logits"])) < limit
        for i, x in enumerate(features):
            x = x[0]
            assert x.shape == tuple(want[f"feat{i}_shape"][-3:])
            figures = {
                "mean": x.mean((1, 2)),
                "std": x.std((1, 2), correction=0),
                "corner": x[:, 0, 0],
                "center": x[:, x.shape[1] // 2, x.shape[2] // 2],
            }
            for part, got in figures.items():
                expected = torch.from_numpy(want[f"feat{i}_{part}"]).reshape(-1)
                assert deviation(got, expected) < limit, (i, part)


def check_keys(parity: Path, family: str, variant: str, name: str) -> None:
    """Every key and shape of the authors' file has its place, and none is left."""
    figures = json.loads((parity / f"{family}.json").read_text())[variant]
    model = timm.create_model(name, device="meta")
    state = {k: torch.empty(s, device="meta") for k, (s, _) in figures["keys"].items()}
    renamed = importlib.import_module(type(model).__module__).checkpoint_filter_fn(state, model)
    own = model.state_dict()
    assert {k: v.shape for k, v in renamed.items()} == {k: v.shape for k, v in own.items()}
    assert sum(p.numel() for p in model.parameters()) == figures["params"]


def check_fused(model: nn.Module) -> nn.Module:
    """The fused form of `model` computes the same and has nothing left to fold; returned."""
    randomize(model).eval()
    for dtype, limit in ((torch.float64, 1e-10), (torch.float32, 1e-5)):
        model = model.to(dtype)
        fused, report = fuse_checked(model, torch.randn(2, 3, 64, 96, dtype=dtype))
        assert report.deviation < limit
        x = torch.randn(3, 3, 50, 33, dtype=dtype)
        with torch.no_grad():
            assert deviation(fused(x), model(x)) < limit
    for module in fused.modules():
        assert not isinstance(module, nn.modules.batchnorm._BatchNorm)
        assert not hasattr(module, "fuse"), type(module).__name__
    timms = reparameterize_model(model)
    assert fused.state_dict().keys() == timms.state_dict().keys()
    with torch.no_grad():
        assert torch.equal(fused(x), timms(x))
    return fused


def check_forms(model: nn.Module) -> None:
    """Scripted, compiled, exported, traced, channels last, checkpointed: all compute the same."""
    randomize(model).eval()
    x = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        want = model(x)
        assert deviation(torch.jit.script(model)(x), want) < 1e-5
        assert deviation(torch.compile(model, fullgraph=True, backend="aot_eager")(x), want) < 1e-5
        assert deviation(torch.export.export(model, (x,)).module()(x), want) < 1e-5
        assert deviation(torch.fx.symbolic_trace(model)(x), want) < 1e-5
        assert deviation(model(x.contiguous(memory_format=torch.channels_last)), want) < 1e-5
        assert model(torch.randn(1, 3, 32, 32)).isfinite().all()
    model.set_grad_checkpointing()
    model.train()
    y = model(x)
    y.square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def check_features(name: str, channels: tuple[int, ...]) -> None:
    """Maps at strides 4, 8, 16, 32 of a gray picture; unknown arguments are refused."""
    model = timm.create_model(name, device="meta", in_chans=1, features_only=True)
    maps = model(torch.empty(1, 1, 64, 96, device="meta"))
    sizes = [(16, 24), (8, 12), (4, 6), (2, 3)]
    want = [(c, *size) for c, size in zip(channels, sizes, strict=True)]
    assert [tuple(m.shape[1:]) for m in maps] == want
    with pytest.raises(TypeError, match="deploy"):
        timm.create_model(name, device="meta", deploy=True)


def check_onnx(model: nn.Module, folder: Path) -> None:
    """onnxruntime computes the same from the exported file; `export_model` compares."""
    pytest.importorskip("onnxruntime")
    randomize(model).eval()
    export_model(model, folder / "net.onnx", "onnx", torch.randn(2, 3, 64, 96))
    assert (folder / "net.onnx").is_file()
