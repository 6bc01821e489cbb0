"""Time series: Global Temp and Wind as published, and tables of some series."""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Family, Recipe, Table

SMALL_SERIES = Recipe(
    task="forecasting",
    options={"steps": 96, "horizon": 96, "width": 24, "decoder": "linear", "val_stride": 4},
    smoke_options={"steps": 16, "horizon": 8, "width": 16},
    model_options={"kernel_sizes": (3, 13, 13, 13)},
    epochs=3,
    batch_size=32,
    lr=1e-3,
    warmup_epochs=0.2,
    layer_scale=0.1,
    dataset="any table of times and numbers",
    source="measured here",
    hardware="1 CPU core",
    note="A map of 48 x 48 per series and a linear skip connection; all series share the network.",
)

GLOBAL_TEMP = Recipe(
    model="unireplknet_s",
    smoke_model="unireplknet_a",
    model_options={"kernel_sizes": (3, 13, (13, 3, 3), 11)},
    task="forecasting",
    options={
        "steps": 48,
        "horizon": 24,
        "width": 768,
        "nodes": 350,
        "decoder": "corrformer",
        "heads": 16,
        "hidden": 2048,
    },
    smoke_options={"steps": 16, "horizon": 8, "width": 16, "nodes": 0, "heads": 4, "hidden": 32},
    epochs=10,
    batch_size=1,
    optimizer="adam",
    lr=1e-4,
    weight_decay=0.0,
    drop_path=0.4,
    schedule="step",
    decay_at=tuple(range(2, 11)),
    decay_rate=0.5,
    warmup_epochs=0.0,
    patience=3,
    dataset="Global Temp, 3850 stations",
    source="2311.15599 section 4.4 and the authors' time-series folder",
    expected={"mse": 7.602, "mae": 1.832},
    hardware="1 GPU x 1",
    note="Published errors are of raw values. The kernel sizes are those of the authors' default.",
)

GLOBAL_WIND = replace(
    GLOBAL_TEMP,
    dataset="Global Wind, 3850 stations",
    expected={"mse": 3.865, "mae": 1.301},
)

FAMILY = Family(
    "Time series",
    (
        Table(SMALL_SERIES, "recipe", ("small_series",)),
        Table(GLOBAL_TEMP, "recipe expected.mse", ("unireplknet_globaltemp", 7.602)),
        Table(GLOBAL_WIND, "recipe expected.mse", ("unireplknet_globalwind", 3.865)),
    ),
)
