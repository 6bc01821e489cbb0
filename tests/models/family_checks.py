"""Checks that every family passes; a family's test file says on what."""

from pathlib import Path

import pytest
import timm
import torch
from timm.models import reparameterize_model
from torch import nn

from seewide.export import export_model
from seewide.reparam import fuse_checked
from seewide.testing import deviation, randomize


def check_fused(model: nn.Module) -> nn.Module:
    """Return the fused model, which computes the same and has nothing left to fuse."""
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


def check_captured(model: nn.Module) -> None:
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
    """Maps at strides 4, 8, 16, 32 of a grey image; unknown arguments are refused."""
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
