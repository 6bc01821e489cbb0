"""How a run is carried out: precision, memory, compilation, clipping; and what is refused."""

from __future__ import annotations

import io
from dataclasses import replace

import pytest
import timm
import torch
from rich.console import Console
from seewide.train.engine import Engine
from timm.models import model_parameters
from timm.utils.agc import unitwise_norm

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.train import fit, learner
from seewide.train.build import build_model, use_grad_checkpointing
from seewide.train.checkpoint import load_last

PLAIN = Recipe(
    image_size=32, min_crop=1.0, flip=0.0, epochs=1, batch_size=8, lr=1e-3, warmup_epochs=0.0
)


@pytest.fixture
def train(tmp_path, pictures, quiet):
    """Train timm's smallest ConvNeXt for an epoch; its state."""

    def run(name: str, recipe: Recipe = PLAIN, **how):
        fit("test_convnext", pictures, recipe, tmp_path / name, workers=0, console=quiet, **how)
        return load_last(tmp_path / name)

    return run


def test_how_a_run_is_carried_out_hardly_changes_what_is_learned(train):
    plain = train("plain")["model"]
    moved = train("moved", replace(PLAIN, lr=1e-4))["model"]["head.fc.weight"]
    assert (moved - plain["head.fc.weight"]).abs().max() > 1e-4
    # Sums in another order, in a few updates; AdamW makes much of gradients near zero.
    other = train("other", channels_last=True, grad_checkpointing=True)["model"]
    torch.testing.assert_close(dict(other), dict(plain), rtol=1e-3, atol=2e-4)


@pytest.mark.slow
@pytest.mark.parametrize("launched", [False, True])
def test_compiled(train, monkeypatch, launched):
    """With inductor, or as `accelerate launch --dynamo_backend eager` says it."""
    plain = train("plain")["model"]
    if launched:
        monkeypatch.setenv("ACCELERATE_DYNAMO_BACKEND", "EAGER")
    compiled = train("compiled", compile=not launched)["model"]
    assert compiled.keys() == plain.keys()
    torch.testing.assert_close(dict(compiled), dict(plain), rtol=1e-3, atol=2e-4)


def test_bf16(train, monkeypatch):
    plain, half = train("plain"), train("half", amp="bf16")
    rows = plain["history"][0], half["history"][0]
    assert rows[1]["train_loss"] != rows[0]["train_loss"]
    assert rows[1]["train_loss"] == pytest.approx(rows[0]["train_loss"], rel=0.05)
    assert half["model"]["head.fc.weight"].dtype == torch.float32
    # As `accelerate launch --mixed_precision bf16` says it.
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert train("launched")["history"][0]["train_loss"] == rows[1]["train_loss"]
    assert str(Engine("cpu")) == "cpu, bfloat16"
    assert str(Engine("cpu", "off")) == "cpu, float32"


def test_adaptive_clipping_holds_for_all_but_the_classifier(train, monkeypatch):
    step, clip, seen = learner.adaptive_clip_grad, 0.02, []

    def clip_and_look(parameters, factor):
        parameters = list(parameters)
        step(parameters, factor)
        for p in parameters:
            if p.grad is not None:
                most = unitwise_norm(p.detach()).clamp(min=1e-3) * clip
                seen.append(bool((unitwise_norm(p.grad) <= most * 1.001).all()))
        assert factor == clip

    monkeypatch.setattr(learner, "adaptive_clip_grad", clip_and_look)
    train("clipped", replace(PLAIN, clip_adaptive=clip))
    model = timm.create_model("test_convnext")
    updates = 2
    assert len(seen) == updates * len(list(model_parameters(model, exclude_head=True)))
    assert all(seen)


def test_what_is_announced(tmp_path, pictures):
    console = Console(file=io.StringIO(), width=200)
    recipe = replace(PLAIN, device_batch=2, lr_batch=512)
    fit("test_convnext", pictures, recipe, tmp_path / "run", workers=0, console=console)
    said = console.file.getvalue()
    assert "batch     8 = 2 per device x 1 process x 4 passes" in said
    assert "lr        1.5625e-05 (0.001 for each 512)" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cpu", "fp16"), "--amp fp16 needs a GPU; on the CPU there is bf16 or off"),
        (("cpu", "fp8"), "unknown --amp 'fp8'; did you mean fp16"),
        (("abacus",), "device 'abacus' is not here"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Engine(*arguments)


def test_a_network_without_gradient_checkpointing():
    with pytest.raises(InputError, match="Linear has no gradient checkpointing"):
        use_grad_checkpointing(torch.nn.Linear(2, 2), "Linear")
    use_grad_checkpointing(build_model("unireplknet_a", 3, 32), "unireplknet_a")
