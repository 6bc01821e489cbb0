"""The published evaluation settings of every weight tag."""

import pytest
import timm
from timm.data import (
    IMAGENET_DEFAULT_MEAN,
    IMAGENET_DEFAULT_STD,
    create_transform,
    resolve_data_config,
)
from torchvision.transforms import CenterCrop, Resize

import seewide

HALF = (0.5, 0.5, 0.5)
# Sources: datasets.py of UniRepLKNet, UniConvNet, RepLKNet and SLaK (crop 0.875 below 384 pixels,
# squash from 384 on), their training commands for sizes, data/datasets.py of LSNet (256 to 224).
# Columns: input size, crop_pct, crop_mode.
AT_224 = (224, 0.875, "center")
AT_384 = (384, 1.0, "squash")
AT_192 = (192, 0.875, "center")
SETTINGS = {
    **{f"unireplknet_{size}.in1k": AT_224 for size in "afpnts"},
    **{f"unireplknet_{size}.in22k_ft_in1k_384": AT_384 for size in ("s", "b", "l", "xl")},
    **{f"unireplknet_{size}.in22k": AT_224 for size in "sb"},
    **{f"unireplknet_{size}.in22k": AT_192 for size in ("l", "xl")},
    **{f"lsnet_{size}{kind}.in1k": AT_224 for size in "tsb" for kind in ("", "_distill")},
    **{
        f"uniconvnet_{s}.in1k": AT_224
        for s in ["a", "p0", "p1", "p2", "n0", "n1", "n2", "n3", "t", "s", "b"]
    },
    **{f"uniconvnet_{size}.in1k_384": AT_384 for size in "tsb"},
    **{f"uniconvnet_{size}.in22k_ft_in1k_384": AT_384 for size in ("l", "xl")},
    **{f"uniconvnet_{size}.in22k": AT_224 for size in ("l", "xl")},
    "replknet_31b.in1k": AT_224,
    "replknet_31b.in1k_384": AT_384,
    "replknet_31b.in22k_ft_in1k": AT_224,
    "replknet_31b.in22k_ft_in1k_384": AT_384,
    "replknet_31l.in22k_ft_in1k_384": AT_384,
    "replknet_xl.meg73m_ft_in1k_320": (320, 0.875, "center"),
}
NORMALIZATION = {"replknet_xl.meg73m_ft_in1k_320": (HALF, HALF)}


def test_the_table_has_every_published_tag():
    assert SETTINGS.keys() == set(seewide.list_models(pretrained=True))


@pytest.mark.parametrize("tag", SETTINGS)
def test_settings(tag):
    config = timm.get_pretrained_cfg(tag)
    size, crop_pct, crop_mode = SETTINGS[tag]
    assert config.input_size == (3, size, size)
    assert (config.crop_pct, config.crop_mode) == (crop_pct, crop_mode)
    assert config.interpolation == "bicubic"
    default = (IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD)
    assert (config.mean, config.std) == NORMALIZATION.get(tag, default)
    pool = -(-size // 64) if "lsnet" in tag else size // 32
    assert config.pool_size == (pool, pool)
    assert config.num_classes == (21841 if tag.endswith("in22k") else 1000)


@pytest.mark.parametrize(
    ("tag", "resize"),
    [
        ("unireplknet_s.in22k_ft_in1k_384", (384, 384)),  # both sides: no aspect ratio
        ("replknet_xl.meg73m_ft_in1k_320", 365),
        ("lsnet_t.in1k", 256),
    ],
)
def test_timm_transforms_follow_the_settings(tag, resize):
    config = resolve_data_config(pretrained_cfg=timm.get_pretrained_cfg(tag).to_dict())
    steps = create_transform(**config).transforms
    (found,) = [step for step in steps if isinstance(step, Resize)]
    squash = isinstance(resize, tuple)
    assert (tuple(found.size) if squash else found.size) == resize
    assert squash or any(isinstance(step, CenterCrop) for step in steps)
