"""Networks, one file per family, registered with timm on import."""

import fnmatch

import timm

from ..checkpoints import load_checkpoint
from . import lsnet, pelk, replknet, slak, uniconvnet, unireplknet
from .lsnet import LSNet
from .pelk import PeLK
from .replknet import RepLKNet
from .slak import SLaK
from .uniconvnet import UniConvNet
from .unireplknet import UniRepLKNet

__all__ = [
    "LSNet",
    "PeLK",
    "RepLKNet",
    "SLaK",
    "UniConvNet",
    "UniRepLKNet",
    "list_models",
    "load_checkpoint",
]

FAMILIES = (unireplknet, lsnet, replknet, slak, pelk, uniconvnet)


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Names of seewide's networks.

    Args:
        pattern: shell-style wildcard that the names match.
        pretrained: list weight tags, `model.tag`, of the networks with published weights instead.
    """
    names = timm.list_models(pretrained=pretrained)
    ours = {name for family in FAMILIES for name in family.default_cfgs}
    return [n for n in names if n.partition(".")[0] in ours and fnmatch.fnmatch(n, pattern)]
