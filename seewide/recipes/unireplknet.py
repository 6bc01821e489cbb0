"""UniRepLKNet on ImageNet: Table 16 and 17 of arXiv 2410.08049.

Where table and published commands disagree, the commands count (they made the weights):
- the 22k recipes of L and XL use lr 1e-3, not the table's 4e-3;
- fine-tuning uses layer decay 0.8, head_init_scale 0.001 and, for L and XL, label smoothing 0.3 and
  an average of the weights, none of which the table has.
The table says 5 epochs of warm-up and the authors' script defaults to 20: we follow the table.
Layer decay counts the groups of the model's `group_matcher`; the authors used 12.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._recipe import Recipe

# What all rows share: the defaults of Recipe, and the augmentations of every ConvNeXt-like recipe.
_COMMON = Recipe(rand_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, erase=0.25)


def _in1k(drop_path: float, mixup: float, cutmix: float, device_batch: int = 128) -> Recipe:
    return replace(
        _COMMON, drop_path=drop_path, mixup=mixup, cutmix=cutmix, device_batch=device_batch
    )


def unireplknet_a_in1k() -> Recipe:
    """300 epochs, 4.4 M parameters, 77.0 top-1 (paper).

    seewide train unireplknet_a --data IMAGENET --recipe unireplknet_a_in1k
    Paper: 4 GPUs x 128 images x 8 passes. Hours: not printed.
    """
    return _in1k(drop_path=0.0, mixup=0.3, cutmix=0.3)


def unireplknet_f_in1k() -> Recipe:
    """As A; 6.2 M parameters, 78.6 top-1 (paper).

    seewide train unireplknet_f --data IMAGENET --recipe unireplknet_f_in1k
    """
    return unireplknet_a_in1k()


def unireplknet_p_in1k() -> Recipe:
    """10.7 M parameters, 80.2 top-1 (paper); 4 GPUs x 128 x 8.

    seewide train unireplknet_p --data IMAGENET --recipe unireplknet_p_in1k
    """
    return _in1k(drop_path=0.1, mixup=0.3, cutmix=0.3)


def unireplknet_n_in1k() -> Recipe:
    """18.3 M parameters, 81.6 top-1 (paper); 4 GPUs x 128 x 8.

    seewide train unireplknet_n --data IMAGENET --recipe unireplknet_n_in1k
    """
    return _in1k(drop_path=0.1, mixup=0.5, cutmix=0.5)


def unireplknet_t_in1k() -> Recipe:
    """31 M parameters, 83.2 top-1 (paper); 4 GPUs x 128 x 8.

    seewide train unireplknet_t --data IMAGENET --recipe unireplknet_t_in1k
    """
    return _in1k(drop_path=0.2, mixup=0.8, cutmix=1.0)


def unireplknet_s_in1k() -> Recipe:
    """55.6 M parameters, 83.9 top-1 (paper); 8 GPUs x 64 x 8.

    seewide train unireplknet_s --data IMAGENET --recipe unireplknet_s_in1k
    Paper, Table 18: 24.6 GB a GPU and 6642 images a second on 8 A100, so about 16 hours.
    """
    return _in1k(drop_path=0.4, mixup=0.8, cutmix=1.0, device_batch=64)


def unireplknet_sb_in22k() -> Recipe:
    """S and B on ImageNet-22K, 90 epochs at 224 px; 16 GPUs x 32 x 8 (paper).

    seewide train unireplknet_s --data IMAGENET22K --recipe unireplknet_sb_in22k
    Expect: judged after fine-tuning.
    """
    return replace(_in1k(drop_path=0.1, mixup=0.8, cutmix=1.0, device_batch=32), epochs=90)


def unireplknet_l_in22k() -> Recipe:
    """L on ImageNet-22K, 90 epochs at 192 px, lr 1e-3; 16 GPUs x 64 x 4 (paper).

    seewide train unireplknet_l --data IMAGENET22K --recipe unireplknet_l_in22k
    """
    return replace(unireplknet_sb_in22k(), image_size=192, lr=1e-3, device_batch=64)


def unireplknet_xl_in22k() -> Recipe:
    """As L with drop path 0.2; 32 GPUs x 32 x 4 (paper).

    seewide train unireplknet_xl --data IMAGENET22K --recipe unireplknet_xl_in22k
    """
    return replace(unireplknet_l_in22k(), drop_path=0.2, device_batch=32)


def unireplknet_sb_ft384() -> Recipe:
    """22k weights of S or B to ImageNet-1K at 384 px: S 86.4, B 87.4 top-1 (paper).

    seewide train unireplknet_s --data IMAGENET --checkpoint WEIGHTS --recipe unireplknet_sb_ft384
    Paper: 4 GPUs x 64 x 2, 30 epochs.
    """
    return replace(
        _COMMON,
        image_size=384,
        crop_pct=1.0,
        crop_mode="squash",
        epochs=30,
        batch_size=512,
        device_batch=64,
        lr=5e-5,
        warmup_epochs=0.0,
        weight_decay=1e-8,
        layer_decay=0.8,
        drop_path=0.2,
        head_init_scale=0.001,
    )


def unireplknet_lxl_ft384() -> Recipe:
    """22k weights of L or XL to ImageNet-1K at 384 px: L 87.9, XL 88.0 top-1 (paper).

    seewide train unireplknet_l --data IMAGENET --checkpoint WEIGHTS --recipe unireplknet_lxl_ft384
    Paper: L 4 GPUs x 64 x 2, XL 8 x 32 x 2, 20 epochs.
    """
    return replace(
        unireplknet_sb_ft384(),
        epochs=20,
        device_batch=32,
        drop_path=0.3,
        label_smoothing=0.3,
        ema_decay=0.9999,
    )


RECIPES = (
    unireplknet_a_in1k,
    unireplknet_f_in1k,
    unireplknet_p_in1k,
    unireplknet_n_in1k,
    unireplknet_t_in1k,
    unireplknet_s_in1k,
    unireplknet_sb_in22k,
    unireplknet_l_in22k,
    unireplknet_xl_in22k,
    unireplknet_sb_ft384,
    unireplknet_lxl_ft384,
)
