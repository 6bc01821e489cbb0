"""Point clouds: ModelNet40 and ScanObjectNN as published, and small collections."""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Family, Recipe, Table

SMALL_POINTS = Recipe(
    task="points",
    options={
        "projection": "depth",
        "side": 48,
        "rotate": "none",
        "scale": 1.2,
        "shift": 0.05,
        "label_smoothing": 0.1,
    },
    smoke_options={"side": 32},
    epochs=12,
    batch_size=32,
    lr=2e-3,
    warmup_epochs=1.0,
    layer_scale=0.1,
    dataset="any folder of point clouds",
    source="measured here",
    hardware="1 CPU core",
    note="Three fixed depth views as the channels of one image, from random weights.",
)

MODELNET40 = Recipe(
    model="unireplknet_s",
    smoke_model="unireplknet_a",
    task="points",
    options={"points": 4096},
    smoke_options={"side": 32, "points": 0, "neighbours": 8},
    epochs=300,
    batch_size=16,
    lr=5e-4,
    weight_decay=0.05,
    drop_path=0.4,
    warmup_epochs=0.0,
    dataset="ModelNet40",
    source="2311.15599 section 4.4 and the authors' point folder",
    expected={"top1": 93.2, "macc": 90.3},
    hardware="not stated",
)

SCANOBJECTNN = replace(
    MODELNET40,
    options={"points": 2048, "side": 192},
    dataset="ScanObjectNN, PB_T50_RS",
    source="the authors' point folder; no result of UniRepLKNet is published",
    expected={},
)

FAMILY = Family(
    "Point clouds",
    (
        Table(SMALL_POINTS, "recipe", ("small_points",)),
        Table(MODELNET40, "recipe expected.top1", ("unireplknet_modelnet40", 93.2)),
        Table(SCANOBJECTNN, "recipe", ("unireplknet_scanobjectnn",)),
    ),
)
