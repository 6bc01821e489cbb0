"""UniRepLKNet on ImageNet: Tables 16 and 17 of arXiv 2410.08049, and the authors' commands.

Where the two disagree the commands count, for they made the weights (docs/discrepancies.md). The
commands for ImageNet-1K leave the warm-up to their script, which says 20 epochs; the table says 5,
and so do we.
"""

from __future__ import annotations

from dataclasses import replace

from seewide.recipes._convnext import FINE_TUNE_384, PRETRAIN
from seewide.recipes._recipe import Recipe

_COMMON = replace(PRETRAIN, smoke_model="unireplknet_a", warmup_epochs=5.0, device_batch=128)


def _in1k(size: str, drop_path: float, mixup: float, cutmix: float) -> Recipe:
    return replace(
        _COMMON, model=f"unireplknet_{size}", drop_path=drop_path, mixup=mixup, cutmix=cutmix
    )


def _in22k(size: str) -> Recipe:
    return replace(_COMMON, model=f"unireplknet_{size}", epochs=90, drop_path=0.1, device_batch=32)


def _ft384(size: str) -> Recipe:
    return replace(
        FINE_TUNE_384,
        model=f"unireplknet_{size}.in22k",
        smoke_model="unireplknet_a",
        device_batch=64,
        drop_path=0.2,
        layer_decay=0.8,
    )


def unireplknet_a_in1k() -> Recipe:
    """UniRepLKNet-A, 4.4 M parameters: 77.0 top-1; 4 GPUs x 128 x 8.

    seewide train unireplknet_a_in1k --data IMAGENET
    """
    return _in1k("a", drop_path=0.0, mixup=0.3, cutmix=0.3)


def unireplknet_f_in1k() -> Recipe:
    """UniRepLKNet-F, 6.2 M parameters: 78.6 top-1; 4 GPUs x 128 x 8.

    seewide train unireplknet_f_in1k --data IMAGENET
    """
    return _in1k("f", drop_path=0.0, mixup=0.3, cutmix=0.3)


def unireplknet_p_in1k() -> Recipe:
    """UniRepLKNet-P, 10.7 M parameters: 80.2 top-1; 4 GPUs x 128 x 8.

    seewide train unireplknet_p_in1k --data IMAGENET
    """
    return _in1k("p", drop_path=0.1, mixup=0.3, cutmix=0.3)


def unireplknet_n_in1k() -> Recipe:
    """UniRepLKNet-N, 18.3 M parameters: 81.6 top-1; 4 GPUs x 128 x 8.

    seewide train unireplknet_n_in1k --data IMAGENET
    """
    return _in1k("n", drop_path=0.1, mixup=0.5, cutmix=0.5)


def unireplknet_t_in1k() -> Recipe:
    """UniRepLKNet-T, 31 M parameters: 83.2 top-1; 4 GPUs x 128 x 8.

    seewide train unireplknet_t_in1k --data IMAGENET
    """
    return _in1k("t", drop_path=0.2, mixup=0.8, cutmix=1.0)


def unireplknet_s_in1k() -> Recipe:
    """UniRepLKNet-S, 55.6 M parameters: 83.9 top-1; 8 GPUs x 64 x 8.

    seewide train unireplknet_s_in1k --data IMAGENET
    Table 18: 24.6 GB a GPU and 6642 images a second on 8 A100, so about 16 hours.
    """
    return replace(_in1k("s", drop_path=0.4, mixup=0.8, cutmix=1.0), device_batch=64)


def unireplknet_ablation() -> Recipe:
    """100 epochs, as the design comparisons of Tables 2 and 3 have.

    seewide train unireplknet_ablation --data IMAGENET
    Their network has ConvNeXt-T's depths and widths; UniRepLKNet-T is the nearest with a name.
    The section says no more than epochs and drop path, the rest is T's; scores are mostly mIoU.
    """
    return replace(unireplknet_t_in1k(), epochs=100, drop_path=0.1)


def unireplknet_s_in22k() -> Recipe:
    """UniRepLKNet-S on ImageNet-22K, 90 epochs; 16 GPUs x 32 x 8.

    seewide train unireplknet_s_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return _in22k("s")


def unireplknet_b_in22k() -> Recipe:
    """UniRepLKNet-B on ImageNet-22K, 90 epochs; 16 GPUs x 32 x 8.

    seewide train unireplknet_b_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return _in22k("b")


def unireplknet_l_in22k() -> Recipe:
    """UniRepLKNet-L on ImageNet-22K at 192 px, a quarter of the rate; 16 GPUs x 64 x 4.

    seewide train unireplknet_l_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return replace(_in22k("l"), image_size=192, lr=1e-3, device_batch=64)


def unireplknet_xl_in22k() -> Recipe:
    """UniRepLKNet-XL on ImageNet-22K, as L with more drop path; 32 GPUs x 32 x 4.

    seewide train unireplknet_xl_in22k --data IMAGENET22K
    Judged after fine-tuning.
    """
    return replace(_in22k("xl"), image_size=192, lr=1e-3, drop_path=0.2)


def unireplknet_s_ft384() -> Recipe:
    """UniRepLKNet-S, 22K weights to ImageNet-1K at 384 px: 86.4 top-1; 4 GPUs x 64 x 2.

    seewide train unireplknet_s_ft384 --data IMAGENET --pretrained
    """
    return _ft384("s")


def unireplknet_b_ft384() -> Recipe:
    """UniRepLKNet-B, 22K weights to ImageNet-1K at 384 px: 87.4 top-1; 4 GPUs x 64 x 2.

    seewide train unireplknet_b_ft384 --data IMAGENET --pretrained
    """
    return _ft384("b")


def unireplknet_l_ft384() -> Recipe:
    """UniRepLKNet-L, 22K weights to ImageNet-1K at 384 px: 87.9 top-1; 4 GPUs x 64 x 2.

    seewide train unireplknet_l_ft384 --data IMAGENET --pretrained
    """
    return replace(_ft384("l"), epochs=20, drop_path=0.3, label_smoothing=0.3, ema_decay=0.9999)


def unireplknet_xl_ft384() -> Recipe:
    """UniRepLKNet-XL, 22K weights to ImageNet-1K at 384 px: 88.0 top-1; 8 GPUs x 32 x 2.

    seewide train unireplknet_xl_ft384 --data IMAGENET --pretrained
    """
    return replace(unireplknet_l_ft384(), model="unireplknet_xl.in22k", device_batch=32)


RECIPES = (
    unireplknet_a_in1k,
    unireplknet_f_in1k,
    unireplknet_p_in1k,
    unireplknet_n_in1k,
    unireplknet_t_in1k,
    unireplknet_s_in1k,
    unireplknet_ablation,
    unireplknet_s_in22k,
    unireplknet_b_in22k,
    unireplknet_l_in22k,
    unireplknet_xl_in22k,
    unireplknet_s_ft384,
    unireplknet_b_ft384,
    unireplknet_l_ft384,
    unireplknet_xl_ft384,
)
