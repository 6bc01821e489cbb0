"""Our engine beside a dozen lines of timm's own parts gives the same losses and weights."""

from __future__ import annotations

import pytest
import timm
import torch
from timm.data import Mixup, create_transform
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from tiny import SMALL, change

from seewide.data import Order, open_classification
from seewide.seeding import seed_all, seeded
from seewide.train import fit
from seewide.train.checkpoint import load_state

RECIPE = change(SMALL, device_batch=0, clip_grad=0.0, layer_decay=0.7, epochs=4, min_lr=1e-5)


def dozen_lines(samples, mean, std) -> tuple[list[float], dict, dict]:
    """Mean losses of the epochs, weights and averaged weights. Random numbers aside."""
    seed_all(0)
    model = timm.create_model("test_convnext", num_classes=3, drop_path_rate=0.2)
    transform = create_transform(
        32, is_training=True, scale=(0.5, 1.0), auto_augment="rand-m5-mstd0.5-inc1",
        color_jitter=None, re_prob=0.5, re_mode="pixel", interpolation="bicubic", mean=mean,
        std=std,
    )  # fmt: skip
    mix = Mixup(0.2, 0.5, label_smoothing=0.1, num_classes=3)
    criterion = SoftTargetCrossEntropy()
    optimizer = create_optimizer_v2(model, "adamw", lr=1e-3, weight_decay=0.05, layer_decay=0.7)
    schedule = CosineLRScheduler(
        optimizer, t_initial=8, lr_min=1e-5, warmup_t=2, warmup_lr_init=1e-6, t_in_epochs=False
    )
    average = ModelEmaV3(model, decay=0.9, use_warmup=True)
    order, losses, done = Order(len(samples), seed=0, per_epoch=16), [], 0
    for order.epoch in range(1, 5):
        keys, losses_of_epoch = list(order), []
        for batch in (keys[:8], keys[8:]):
            rows = []
            for epoch, index in batch:
                with seeded(0, epoch, index):
                    rows.append(transform(samples[index]["image"]))
            y_N = torch.tensor([int(samples.labels[index]) for _, index in batch])
            seed_all(0, order.epoch, done % 2, 0)
            schedule.step_update(done)
            x_NCHW, target_NK = mix(torch.stack(rows), y_N)
            loss = criterion(model(x_NCHW), target_NK)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
            average.update(model, step=done)
            losses_of_epoch.append(loss.item())
        losses.append(sum(losses_of_epoch) / 2)
    return losses, model.state_dict(), average.module.state_dict()


def test_the_loss_curve_is_timms(tmp_path, images, quiet):
    result = fit("test_convnext", images, RECIPE, tmp_path / "run", workers=0, console=quiet)
    config = timm.get_pretrained_cfg("test_convnext")
    losses, model, average = dozen_lines(open_classification(images).train, config.mean, config.std)
    assert [row["train_loss"] for row in result.history] == pytest.approx(losses, rel=1e-6)
    assert losses[-1] < losses[0]
    state = load_state(tmp_path / "run")[0]
    torch.testing.assert_close(dict(state["model"]), dict(model), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(dict(state["ema"]), dict(average), rtol=1e-5, atol=1e-6)
