"""Video: Kinetics-400 as published, and small collections of clips."""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Family, Recipe, Table

SMALL_VIDEO = Recipe(
    task="video",
    options={
        "frames": 9,
        "side": 64,
        "difference": True,
        "sampling": "spread",
        "short": "repeat",
        "min_crop": 0.5,
    },
    smoke_options={"frames": 4, "side": 32},
    epochs=30,
    batch_size=16,
    lr=1e-3,
    warmup_epochs=2.0,
    layer_scale=0.1,
    ema_decay=0.95,
    ema_warmup=True,
    dataset="any folder of short clips",
    source="measured here",
    hardware="1 CPU core",
    note="Differences of 9 frames on a 3 x 3 grid, from random weights.",
)

KINETICS = Recipe(
    model="unireplknet_b",
    smoke_model="unireplknet_a",
    model_options={"kernel_sizes": (3, 13, (13, 3, 3), 11)},
    task="video",
    options={
        "frames": 16,
        "rate": 4,
        "side": 224,
        "layout": "official",
        "short": "repeat",
        "rand_augment": "rand-m7-n4-mstd0.5-inc1",
        "erase": 0.25,
        "mixup": 0.8,
        "cutmix": 1.0,
    },
    smoke_options={"side": 32, "frames": 4},
    epochs=90,
    batch_size=64,
    device_batch=4,
    lr=1e-3,
    min_lr=2.5e-7,
    warmup_epochs=5.0,
    warmup_lr=1e-8,
    weight_decay=0.05,
    layer_decay=0.75,
    layer_groups=12,
    drop_path=0.4,
    repeated_augment=2,
    dataset="Kinetics-400",
    source="2311.15599 section 4.4 and the authors' video folder (run_unireplknet.sh)",
    expected={"top1": 54.8},
    hardware="8 GPUs x 4 x 2",
    note="From random weights. Published with 5 clips x 3 crops: --set task.clips=5 "
    "--set task.crops=3 of `seewide eval`. The authors' batch holds every clip twice, which "
    "doubles it to 128; here the batch stays 64.",
)

# Table 11 of 2410.08049: the same task with smaller kernels, and with other networks.
KERNEL_11 = replace(
    KINETICS,
    model_options={"kernel_sizes": (3, 11, (11, 3, 3), 11)},
    source="2410.08049 table 11",
    expected={"top1": 51.7},
)
CONVNEXT = replace(
    KINETICS,
    model="convnext_small",
    smoke_model="convnext_atto",
    model_options={},
    source="2410.08049 table 11",
    expected={"top1": 48.5},
)
RESNET = replace(
    KINETICS,
    model="resnet101",
    smoke_model="resnet10t",
    model_options={},
    layer_decay=1.0,
    layer_groups=0,
    source="2410.08049 table 11",
    expected={"top1": 41.3},
)

FAMILY = Family(
    "Video",
    (
        Table(SMALL_VIDEO, "recipe", ("small_video",)),
        Table(KINETICS, "recipe", ("unireplknet_k400",)),
        Table(KERNEL_11, "recipe", ("unireplknet_k400_k11",)),
        Table(CONVNEXT, "recipe", ("convnext_k400",)),
        Table(RESNET, "recipe", ("resnet101_k400",)),
    ),
)
