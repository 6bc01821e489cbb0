"""Configurations of CLIP models, registered with open_clip.

`configs/*.json` are open_clip's own format. `clip_NAME` has the image tower NAME of timm with
average pooling and a linear projection, and open_clip's text transformer. UniRepLKNet-L has two:
the paper says that its text tower is that of ViT-g-14, which is 1024 wide with 24 layers in
open_clip (`clip_unireplknet_l`), and that EVA-01-CLIP-g/14 has more than three times as many
parameters, which fits only the text tower of that model, 768 wide with 12 layers
(`clip_unireplknet_l_base`). See docs/clip.md.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

import seewide.models  # noqa: F401 (registers the towers with timm)
from seewide.errors import InputError, require, unknown

CONFIGS = Path(__file__).parent / "configs"
EXTRA = "clip"


def config_names() -> list[str]:
    """Names of the configurations of this package."""
    return sorted(path.stem for path in CONFIGS.glob("*.json"))


@cache
def register() -> ModuleType:
    """Make open_clip know our configurations, and return open_clip.

    Raises:
        InputError: open_clip is not installed.
    """
    open_clip = require("open_clip", EXTRA)
    open_clip.add_model_config(CONFIGS)
    return open_clip


def get_config(name: str) -> dict[str, Any]:
    """A configuration of this package or of open_clip, as a dict.

    Raises:
        InputError: no such name.
    """
    config = register().get_model_config(name)
    if config is None:
        raise unknown("CLIP configuration", name, config_names())
    return config


def changed_config(config: Mapping[str, Any], **changes: Any) -> dict[str, Any]:
    """A copy of a configuration with other settings; values of None, 0 and "" change nothing.

    Args:
        changes: `embed_dim`, or keys of `vision_cfg` and `text_cfg` as `vision__KEY`,
            `text__KEY`.
    """
    new = json.loads(json.dumps(config))
    for key, value in changes.items():
        if value not in (None, 0, ""):
            part, _, inner = key.rpartition("__")
            (new[f"{part}_cfg"] if part else new)[inner] = value
    return new


def check_config(name: str, config: Mapping[str, Any]) -> None:
    """See that open_clip and timm can build a configuration, without building it.

    Raises:
        InputError: a tower that timm does not know, or sizes that do not fit each other.
    """
    import timm

    tower = config["vision_cfg"].get("timm_model_name")
    if tower is not None and not timm.is_model(tower):
        raise unknown("image tower", tower, timm.list_models())
    text = config["text_cfg"]
    if text["width"] % text["heads"]:
        raise InputError(
            f"the text tower of {name} is {text['width']} wide, which its {text['heads']} heads do "
            "not divide"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Without open_clip's warning that weights are random, where that is intended."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)


def create(name: str, **arguments: Any) -> nn.Module:
    """`open_clip.create_model` with our configurations known.

    Args:
        arguments: as `open_clip.create_model`: `pretrained`, `precision`, `device`, ...
    """
    get_config(name)
    with quiet():
        return register().create_model(name, **arguments)


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Parameters of a CLIP model: `image`, `text` and `total`."""
    image = sum(p.numel() for p in model.visual.parameters())
    total = sum(p.numel() for p in model.parameters())
    return {"image": image, "text": total - image, "total": total}
