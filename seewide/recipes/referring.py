"""Referring segmentation: Refer-DAVIS17, and small collections of images with expressions."""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Family, Recipe, Table

SMALL_REFERRING = Recipe(
    task="referring",
    options={"side": 64, "channels": 64, "word_dim": 64, "crop": 0.0},
    smoke_options={"side": 32, "channels": 16, "word_dim": 16},
    epochs=20,
    batch_size=32,
    lr=2e-3,
    warmup_epochs=1.0,
    layer_scale=0.1,
    stem_stride=2,
    dataset="images with expressions and masks, and the built-in shapes",
    source="measured here",
    hardware="1 CPU core",
    note="From random weights, with a vocabulary of the training expressions.",
)

DAVIS = Recipe(
    model="unireplknet_s",
    smoke_model="unireplknet_a",
    task="referring",
    options={"side": 480, "channels": 256, "word_dim": 256, "words": 10, "crop": 0.5},
    smoke_options={"side": 64, "channels": 16, "word_dim": 16},
    epochs=20,
    batch_size=7,
    optimizer="sgd",
    lr=1e-3,
    weight_decay=1e-6,
    schedule="poly",
    poly_power=1.0,
    warmup_epochs=0.0,
    start_from="pretrained",
    dataset="Refer-DAVIS17, after RefCOCO",
    source="2410.08049 section 3.4 and table 15, RefVOS (2010.00263)",
    expected={"j": 50.46, "f": 57.94, "j_and_f": 54.20},
    hardware="not stated",
    note="Expressions of the full video. The paper says neither the size of the network nor where "
    "the fusion lies, and its text encoder is BERT; here words are trained with the network.",
)

DAVIS_FIRST_FRAME = replace(
    DAVIS,
    options={**DAVIS.options, "expressions": "first_frame"},
    expected={"j": 50.63, "f": 57.72, "j_and_f": 54.17},
)
DAVIS_ACM = replace(
    DAVIS,
    options={**DAVIS.options, "fusion": "acm"},
    expected={"j": 48.39, "f": 56.17, "j_and_f": 52.28},
)
DAVIS_PRODUCT = replace(
    DAVIS,
    model="resnet101",
    smoke_model="resnet10t",
    options={**DAVIS.options, "fusion": "product"},
    expected={"j_and_f": 45.10},
)

FAMILY = Family(
    "Referring segmentation",
    (
        Table(SMALL_REFERRING, "recipe", ("small_referring",)),
        Table(DAVIS, "recipe", ("unireplknet_davis",)),
        Table(DAVIS_FIRST_FRAME, "recipe", ("unireplknet_davis_first_frame",)),
        Table(DAVIS_ACM, "recipe", ("unireplknet_davis_acm",)),
        Table(DAVIS_PRODUCT, "recipe", ("resnet101_davis_product",)),
    ),
)
