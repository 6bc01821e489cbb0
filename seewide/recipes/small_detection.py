"""Detection on hundreds of images, on a CPU."""

from __future__ import annotations

from seewide.recipes._recipe import Family, Recipe, Table

_SMOKE = {"short": 64, "long": 96, "scales": (), "system": "retinanet"}

SMALL_DETECTION = Recipe(
    task="detection",
    smoke_model="unireplknet_a",
    options={"system": "retinanet", "short": 320, "long": 480, "scales": (256, 320, 384)},
    smoke_options=_SMOKE,
    dataset="some hundred images with boxes",
    epochs=12,
    batch_size=4,
    lr=5e-4,
    layer_scale=0.1,
    fan_in_init=True,
    warmup_epochs=1.0,
    clip_grad=10.0,
    weight_decay=0.05,
    ema_decay=0.99,
    ema_warmup=True,
    source="measured here",
    hardware="1 CPU core",
)

FAMILY = Family(
    "Small data sets with boxes on a CPU", (Table(SMALL_DETECTION, "recipe", ("small_detection",)),)
)
