"""How a run is carried out: precision, memory, compilation, clipping; and what is refused."""

from __future__ import annotations

import io

import pytest
import timm
import torch
from rich.console import Console
from timm.models import model_parameters
from timm.utils.agc import unitwise_norm
from tiny import change, make_recipe

from seewide.errors import InputError
from seewide.train import fit, step
from seewide.train.build import build_backbone, use_grad_checkpointing
from seewide.train.checkpoint import load_state
from seewide.train.processes import Processes

PLAIN = make_recipe(
    image_size=32, min_crop=1.0, flip=0.0, epochs=1, batch_size=8, lr=1e-3, warmup_epochs=0.0
)


@pytest.fixture
def train(tmp_path, images, quiet):
    """Train timm's smallest ConvNeXt for an epoch; its state."""

    def run(name: str, recipe=PLAIN, **how):
        fit("test_convnext", images, recipe, tmp_path / name, workers=0, console=quiet, **how)
        return load_state(tmp_path / name)[0]

    return run


def test_how_a_run_is_carried_out_hardly_changes_what_is_learned(train):
    plain = train("plain")["model"]
    moved = train("moved", change(PLAIN, lr=1e-4))["model"]["head.fc.weight"]
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
    assert str(Processes("cpu")) == "cpu, bfloat16"
    assert str(Processes("cpu", "off")) == "cpu, float32"


def test_adaptive_clipping_holds_for_all_but_the_classifier(train, monkeypatch):
    original, clip, seen = step.adaptive_clip_grad, 0.02, []

    def clip_and_look(parameters, factor):
        parameters = list(parameters)
        original(parameters, factor)
        for p in parameters:
            if p.grad is not None:
                most = unitwise_norm(p.detach()).clamp(min=1e-3) * clip
                seen.append(bool((unitwise_norm(p.grad) <= most * 1.001).all()))
        assert factor == clip

    monkeypatch.setattr(step, "adaptive_clip_grad", clip_and_look)
    train("clipped", change(PLAIN, clip_adaptive=clip))
    model = timm.create_model("test_convnext")
    updates = 2
    assert len(seen) == updates * len(list(model_parameters(model, exclude_head=True)))
    assert all(seen)


def test_what_is_announced(tmp_path, images):
    console = Console(file=io.StringIO(), width=200)
    recipe = change(PLAIN, device_batch=2, lr_batch=512)
    fit("test_convnext", images, recipe, tmp_path / "run", workers=0, console=console)
    said = console.file.getvalue()
    assert "batch     8 = 2 per device x 1 process x 4 micro-batches" in said
    assert "lr        1.5625e-05 (0.001 per 512)" in said


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("cpu", "fp16"), "--amp fp16 needs a GPU; a CPU supports bf16 or off"),
        (("cpu", "fp8"), "unknown --amp 'fp8'; did you mean fp16"),
        (("abacus",), "device 'abacus' is not available"),
    ],
)
def test_refusals(arguments, sentence):
    with pytest.raises(InputError, match=sentence):
        Processes(*arguments)


def test_a_network_without_gradient_checkpointing():
    with pytest.raises(InputError, match="Linear does not support gradient checkpointing"):
        use_grad_checkpointing(torch.nn.Linear(2, 2), "Linear")
    use_grad_checkpointing(build_backbone("unireplknet_a", {"num_classes": 3}), "unireplknet_a")
