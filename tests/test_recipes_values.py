"""Every value of every recipe beside the papers' tables and the authors' commands.

What a family shares stands once, what a row says stands in its row; together they are the whole
recipe, key by key, so nothing in a recipe goes unlooked at. `docs/discrepancies.md` lists where
table and command differ, and is held to the same recipes.
"""

from __future__ import annotations

import math
import re
from dataclasses import asdict
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import timm

from seewide.recipes import RECIPES, Recipe, get, override
from seewide.train.optim import parameter_groups

DISCREPANCIES = Path(__file__).parents[1] / "docs" / "discrepancies.md"

# ConvNeXt's script, where nothing else is said: AdamW, cosine to 1e-6, bicubic, random resized crop
# and flip, evaluation at 224 of 256.
CONVNEXT = {
    "image_size": 224, "interpolation": "bicubic", "crop_pct": 0.875, "crop_mode": "center",
    "min_crop": 0.08, "flip": 0.5, "rand_augment": "rand-m9-mstd0.5-inc1", "color_jitter": 0.4,
    "erase": 0.25, "mixup": 0.8, "cutmix": 1.0, "repeated_augment": 1, "limit_images": 0,
    "epochs": 300, "batch_size": 4096, "lr": 4e-3, "lr_batch": 4096, "min_lr": 1e-6,
    "warmup_epochs": 20, "warmup_lr": 0, "weight_decay": 0.05, "layer_decay": 1, "layer_groups": 0,
    "clip_grad": 0, "clip_adaptive": 0, "layer_scale": 0, "label_smoothing": 0.1, "ema_decay": 0,
    "head_init_scale": 1, "sync_batch_norm": 0, "fan_in_init": 0, "stem_stride": 0,
    "sparsity": 0, "sparse_init": "snip", "prune_rate": 0.3, "prune_every": 100,
    "growth": "random", "teacher": "", "distill": "hard", "distill_alpha": 0.5, "distill_tau": 1,
}  # fmt: skip
# At 384 px the whole picture is squeezed into the square.
FT384 = CONVNEXT | {
    "image_size": 384, "crop_pct": 1, "crop_mode": "squash", "mixup": 0, "cutmix": 0, "epochs": 30,
    "batch_size": 512, "lr": 5e-5, "lr_batch": 512, "warmup_epochs": 0, "weight_decay": 1e-8,
    "layer_groups": 12, "head_init_scale": 0.001,
}  # fmt: skip
LSNET = CONVNEXT | {
    "batch_size": 2048, "device_batch": 256, "lr": 1e-3, "lr_batch": 512, "min_lr": 1e-5,
    "warmup_epochs": 5, "warmup_lr": 1e-6, "clip_adaptive": 0.02, "repeated_augment": 3,
    "ema_decay": 0.99996, "drop_path": 0,
}  # fmt: skip
TAUGHT = LSNET | {"teacher": "regnety_160.deit_in1k", "distill": "hard", "distill_alpha": 0.5}
IN22K = CONVNEXT | {"epochs": 90, "warmup_epochs": 5}
WEAK = CONVNEXT | {"mixup": 0, "cutmix": 0, "erase": 0, "ema_decay": 0.9999}
SPARSE = CONVNEXT | {"sparsity": 0.4, "sparse_init": "snip", "growth": "random"}
SLAK = SPARSE | {"ema_decay": 0.9999, "sync_batch_norm": 1}
REPLKNET_FT = FT384 | {
    "lr": 4e-4, "warmup_epochs": 1, "layer_decay": 0.7, "ema_decay": 0.9999, "head_init_scale": 1
}  # fmt: skip

TABLES = [
    # 2410.08049, Table 16; device_batch from Image/README.md
    (CONVNEXT | {"warmup_epochs": 5}, "unireplknet_a", """
        recipe              model          drop_path mixup cutmix device_batch epochs
        unireplknet_a_in1k  unireplknet_a  0         0.3   0.3    128          300
        unireplknet_f_in1k  unireplknet_f  0         0.3   0.3    128          300
        unireplknet_p_in1k  unireplknet_p  0.1       0.3   0.3    128          300
        unireplknet_n_in1k  unireplknet_n  0.1       0.5   0.5    128          300
        unireplknet_t_in1k  unireplknet_t  0.2       0.8   1.0    128          300
        unireplknet_s_in1k  unireplknet_s  0.4       0.8   1.0    64           300
        unireplknet_ablation unireplknet_t 0.1       0.8   1.0    128          100
    """),
    # Table 17; lr of L and XL from Image/README.md
    (IN22K, "unireplknet_a", """
        recipe                model           drop_path image_size lr   device_batch
        unireplknet_s_in22k   unireplknet_s   0.1       224        4e-3 32
        unireplknet_b_in22k   unireplknet_b   0.1       224        4e-3 32
        unireplknet_l_in22k   unireplknet_l   0.1       192        1e-3 64
        unireplknet_xl_in22k  unireplknet_xl  0.2       192        1e-3 32
    """),
    (FT384 | {"layer_decay": 0.8}, "unireplknet_a", """
        recipe                model                 drop_path epochs device_batch
        unireplknet_s_ft384   unireplknet_s.in22k   0.2       30     64
        unireplknet_b_ft384   unireplknet_b.in22k   0.2       30     64
    """),
    (FT384 | {"layer_decay": 0.8, "label_smoothing": 0.3, "ema_decay": 0.9999}, "unireplknet_a", """
        recipe                model                 drop_path epochs device_batch
        unireplknet_l_ft384   unireplknet_l.in22k   0.3       20     64
        unireplknet_xl_ft384  unireplknet_xl.in22k  0.3       20     32
    """),
    # 2503.23135; main.py and README of the authors
    (LSNET, "lsnet_t", """
        recipe        model    weight_decay
        lsnet_t_in1k  lsnet_t  0.025
        lsnet_s_in1k  lsnet_s  0.025
        lsnet_b_in1k  lsnet_b  0.05
    """),
    (TAUGHT, "lsnet_t_distill", """
        recipe                model            weight_decay
        lsnet_t_distill_in1k  lsnet_t_distill  0.025
        lsnet_s_distill_in1k  lsnet_s_distill  0.025
        lsnet_b_distill_in1k  lsnet_b_distill  0.05
    """),
    # 2508.09000, Table 11; device_batch from TRAINING.md
    (WEAK, "uniconvnet_a", """
        recipe              model          drop_path device_batch
        uniconvnet_a_in1k   uniconvnet_a   0.05      256
        uniconvnet_p0_in1k  uniconvnet_p0  0.05      256
        uniconvnet_p1_in1k  uniconvnet_p1  0.05      128
        uniconvnet_p2_in1k  uniconvnet_p2  0.08      128
    """),
    (CONVNEXT | {"ema_decay": 0.9999}, "uniconvnet_a", """
        recipe              model          drop_path device_batch
        uniconvnet_n0_in1k  uniconvnet_n0  0.08      128
        uniconvnet_n1_in1k  uniconvnet_n1  0.1       128
        uniconvnet_n2_in1k  uniconvnet_n2  0.1       64
        uniconvnet_n3_in1k  uniconvnet_n3  0.1       64
        uniconvnet_t_in1k   uniconvnet_t   0.2       64
        uniconvnet_s_in1k   uniconvnet_s   0.4       32
        uniconvnet_b_in1k   uniconvnet_b   0.6       32
    """),
    (IN22K, "uniconvnet_a", """
        recipe               model          drop_path device_batch
        uniconvnet_l_in22k   uniconvnet_l   0.2       32
        uniconvnet_xl_in22k  uniconvnet_xl  0.2       32
    """),
    # Table 12
    (FT384, "uniconvnet_a", """
        recipe               model                drop_path layer_decay ema_decay device_batch
        uniconvnet_t_ft384   uniconvnet_t.in1k    0.4       0.7         0         8
        uniconvnet_s_ft384   uniconvnet_s.in1k    0.6       0.7         0         8
        uniconvnet_b_ft384   uniconvnet_b.in1k    0.8       0.7         0         8
        uniconvnet_l_ft384   uniconvnet_l.in22k   0.3       0.8         0.9999    8
        uniconvnet_xl_ft384  uniconvnet_xl.in22k  0.35      0.8         0.9999    8
    """),
    # 2203.06717; README of the authors
    (CONVNEXT | {"batch_size": 2048, "lr_batch": 2048, "ema_decay": 0.9999}, "replknet_31b", """
        recipe             model         drop_path warmup_epochs device_batch
        replknet_31b_in1k  replknet_31b  0.5       10            64
    """),
    (IN22K, "replknet_31b", """
        recipe              model         drop_path device_batch
        replknet_31b_in22k  replknet_31b  0.1       32
        replknet_31l_in22k  replknet_31l  0.1       32
    """),
    (REPLKNET_FT | {"device_batch": 32}, "replknet_31b", """
        recipe                    model              drop_path min_lr batch_size lr_batch
        replknet_31b_ft384        replknet_31b.in1k  0.8       1e-6   1024       1024
    """),
    (REPLKNET_FT | {"min_lr": 3e-4}, "replknet_31b", """
        recipe                    model         drop_path device_batch
        replknet_31b_in22k_ft384  replknet_31b  0.3       16
        replknet_31l_in22k_ft384  replknet_31l  0.3       16
    """),
    (REPLKNET_FT | {"image_size": 224, "crop_pct": 0.875, "crop_mode": "center"},
     "replknet_31b", """
        recipe                    model         drop_path device_batch
        replknet_31b_in22k_ft224  replknet_31b  0.2       32
    """),
    # 2207.03620; README of the authors
    (SLAK, "slak_t", """
        recipe       model   drop_path prune_rate prune_every epochs device_batch
        slak_t_in1k  slak_t  0.1       0.5        2000        300    128
        slak_s_in1k  slak_s  0.4       0.3        100         300    64
        slak_b_in1k  slak_b  0.5       0.3        100         300    32
        slak_t_120e  slak_t  0.1       0.5        2000        120    128
    """),
    # 2403.07589, Appendix A; the sparse schedule is SLaK's
    (SPARSE, "pelk_t_dense", """
        recipe          model      drop_path prune_rate prune_every epochs device_batch
        pelk_t_in1k     pelk_t     0.1       0.5        2000        300    64
        pelk_s_in1k     pelk_s     0.4       0.3        100         300    64
        pelk_b_in1k     pelk_b     0.5       0.3        100         300    64
        pelk101_b_in1k  pelk101_b  0.5       0.3        100         300    64
        pelk_t_120e     pelk_t     0.1       0.5        2000        120    64
    """),
    (CONVNEXT, "pelk_t_dense", """
        recipe             model         drop_path epochs device_batch
        pelk_t_dense_120e  pelk_t_dense  0.1       120    64
    """),
    # fine-tuning of PeLK: only its size and result are printed; ConvNeXt-B's
    (FT384 | {"layer_decay": 0.7, "drop_path": 0.8, "sparsity": 0.4, "prune_rate": 0},
     "pelk_t_dense", """
        recipe           model      device_batch
        pelk_b_ft384     pelk_b     32
        pelk101_b_ft384  pelk101_b  32
    """),
]  # fmt: skip


def rows():
    for shared, smoke_model, text in TABLES:
        keys, *lines = (line.split() for line in text.strip().splitlines())
        for name, *values in lines:
            row = dict(zip(keys[1:], values, strict=True))
            yield name, shared | {"smoke_model": smoke_model} | row


EXPECTED = dict(rows())


@pytest.mark.parametrize("name", [name for name in RECIPES if get(name).model])
def test_a_recipe_is_its_row_of_the_table(name):
    expected = EXPECTED[name]
    assert set(expected) == set(asdict(Recipe())), "the table says something of every key"
    assert asdict(get(name)) == asdict(override(Recipe(), expected))


def test_every_row_has_its_recipe():
    assert set(EXPECTED) == {name for name in RECIPES if get(name).model}


def differences():
    """(pattern, key, paper, authors' code, here) of each row of the table under "Recipes"."""
    section = DISCREPANCIES.read_text().partition("\n## Recipes\n")[2].partition("\n## ")[0]
    for line in section.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) == 5 and cells[0].startswith("`"):
            for pattern in re.findall(r"`([^`]+)`", cells[0]):
                yield pattern, cells[1].strip("`"), *cells[2:]


@pytest.mark.parametrize("difference", [*differences()], ids=lambda row: f"{row[0]}-{row[1]}")
def test_the_difference_is_named_as_it_is(difference):
    pattern, key, paper, code, here = difference
    named = [name for name in RECIPES if fnmatchcase(name, pattern)]
    assert named
    value, *reason = here.split(" ", 1)
    for name in named:
        assert getattr(get(name), key) == getattr(override(Recipe(), {key: value}), key), name
    assert paper.split()[0] != code.split()[0]
    if value != code.split()[0]:  # the code made the weights, unless a reason speaks for the paper
        assert value == paper.split()[0]
        assert reason


def test_the_known_differences_are_all_there():
    """As the facts list them: systems.md's tables "paper vs code", so far as they are settings."""
    found = {(pattern, key) for pattern, key, *_ in differences()}
    for pattern, *keys in (
        ("unireplknet_?_in1k", "warmup_epochs"),
        ("unireplknet_l_in22k", "lr"),
        ("unireplknet_xl_in22k", "lr"),
        ("unireplknet_*_ft384", "layer_decay", "head_init_scale"),
        ("unireplknet_l_ft384", "ema_decay", "label_smoothing"),
        ("unireplknet_xl_ft384", "ema_decay", "label_smoothing"),
        ("lsnet_*", "crop_pct"),
        ("uniconvnet_a_in1k", "mixup", "cutmix", "erase"),
        ("uniconvnet_n0_in1k", "mixup", "cutmix", "erase"),
        ("uniconvnet_*_in1k", "flip", "min_crop"),
        ("uniconvnet_*_in22k", "warmup_epochs", "image_size"),
        ("uniconvnet_[tsb]_ft384", "ema_decay"),
        ("uniconvnet_*l_ft384", "epochs"),
    ):
        assert {(pattern, key) for key in keys} <= found


# Blocks of the third stage that share a group in the authors' code. Theirs of RepLKNet also puts
# the convolutions between two stages into the group before them; docs/discrepancies says so.
GROUPED = {"unireplknet_xl_ft384": 3, "uniconvnet_t_ft384": 3, "uniconvnet_xl_ft384": 3,
           "pelk_b_ft384": 3, "replknet_31l_in22k_ft384": 4}  # fmt: skip


@pytest.mark.parametrize("name", GROUPED)
def test_fine_tuning_slows_each_layer_as_the_authors_do(name):
    recipe = get(name)
    model = timm.create_model(recipe.model, device="meta")
    names = {id(parameter): path for path, parameter in model.named_parameters()}

    def depth(parameter: str) -> int:
        found = re.match(r"stages\.(\d)\.(?:blocks\.(\d+))?", parameter)
        if not found:
            return 0 if parameter.startswith("stem") else 13
        stage, block = int(found[1]), int(found[2] or 0)
        return {0: 1, 1: 2, 3: 12}.get(stage, 3 + block // GROUPED[name])

    further = 2 if GROUPED[name] == 4 else 0  # groups, at most, that we are nearer to the head
    for group in parameter_groups(model, recipe):
        for parameter in group["params"]:
            theirs = 13 - depth(names[id(parameter)])
            ours = math.log(group["lr_scale"]) / math.log(recipe.layer_decay)
            assert -1e-6 < theirs - ours < further + 1e-6, names[id(parameter)]
