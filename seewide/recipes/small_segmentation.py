"""Segmentation of hundreds of images, on a CPU."""

from __future__ import annotations

from seewide.recipes._recipe import Family, Recipe, Table

SMALL_SEGMENTATION = Recipe(
    task="segmentation",
    smoke_model="unireplknet_a",
    options={"system": "semantic_fpn", "short": 180, "long": 480, "crop": 160},
    smoke_options={"short": 64, "long": 128, "crop": 64},
    dataset="some hundred images with masks",
    epochs=20,
    batch_size=8,
    lr=1e-3,
    layer_scale=0.1,
    fan_in_init=True,
    warmup_epochs=1.0,
    weight_decay=0.05,
    schedule="poly",
    ema_decay=0.98,
    ema_warmup=True,
    source="measured here",
    hardware="1 CPU core",
)

FAMILY = Family(
    "Small data sets with masks on a CPU",
    (Table(SMALL_SEGMENTATION, "recipe", ("small_segmentation",)),),
)
