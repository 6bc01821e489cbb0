"""Audio: Speech Commands and AudioSet as published, and small collections of recordings."""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Family, Recipe, Table

SMALL_AUDIO = Recipe(
    task="audio",
    options={
        "mel_bins": 64,
        "frames": 64,
        "freq_mask": 8,
        "time_mask": 8,
        "noise": 0.1,
        "roll": 4,
        "speed": 0.1,
        "label_smoothing": 0.1,
    },
    smoke_options={"mel_bins": 32, "frames": 32},
    epochs=16,
    batch_size=32,
    lr=2e-3,
    warmup_epochs=1.0,
    layer_scale=0.1,
    ema_decay=0.98,
    ema_warmup=True,
    dataset="any folder of short recordings",
    source="measured here",
    hardware="1 CPU core",
    note="A thousand recordings of less than a second, from random weights.",
)

SPEECH_COMMANDS = Recipe(
    model="unireplknet_s",
    smoke_model="unireplknet_a",
    task="audio",
    options={
        "mean": -6.845978,
        "std": 5.5654526,
        "padding": "zero",
        "freq_mask": 48,
        "time_mask": 48,
        "noise": 0.1,
        "roll": 10,
        "mixup": 0.6,
        "mixup_alpha": 10.0,
        "loss": "bce",
    },
    epochs=100,
    batch_size=128,
    optimizer="adam",
    betas=(0.95, 0.999),
    lr=2.5e-4,
    weight_decay=5e-7,
    drop_path=0.4,
    schedule="step",
    decay_at=tuple(range(5, 100)),
    decay_rate=0.85,
    warmup_epochs=0.0,
    dataset="Speech Commands V2, 35 classes",
    source="2311.15599 section 4.4 and the authors' audio folder (run_sc.sh)",
    expected={"top1": 98.5},
    hardware="1 GPU x 128",
)

AUDIOSET = replace(
    SPEECH_COMMANDS,
    options={
        **SPEECH_COMMANDS.options,
        "frames": 1024,
        "mean": -4.2677393,
        "std": 4.5689974,
        "time_mask": 192,
        "mixup": 0.5,
    },
    smoke_options={"frames": 64},
    epochs=5,
    decay_at=(2, 3, 4),
    decay_rate=0.5,
    warmup_epochs=0.0,
    warmup_steps=1000,
    dataset="AudioSet-2M, 527 classes",
    source="no recipe is published; that of AST (2104.01778), whose code the authors changed",
    expected={"map": 48.5},
    hardware="not stated",
)

FAMILY = Family(
    "Audio",
    (
        Table(SMALL_AUDIO, "recipe", ("small_audio",)),
        Table(SPEECH_COMMANDS, "recipe expected.top1", ("unireplknet_speechcommands", 98.5)),
        Table(AUDIOSET, "recipe expected.map", ("unireplknet_audioset", 48.5)),
    ),
)
