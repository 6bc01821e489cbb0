"""Shapes that the operators meet in real networks, read off the networks themselves.

Each network runs once on the meta device, merged, at 224 x 224, and every layer of interest says
what came in. Legend: C channels, H x W map.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import timm
import torch
from timm.layers import LayerNorm2d, SEModule
from torch import nn

from seewide.layers import (
    DCNv3,
    DepthwiseConv2d,
    DepthwiseConv2dLast,
    GlobalResponseNorm,
    PeripheralConv2d,
)
from seewide.layers.ls_conv import FusedLSConv
from seewide.reparam import fuse

NETWORKS = {
    "unireplknet_t": "UniRepLKNet-T",
    "pelk_t": "PeLK-T",
    "pelk101_t": "PeLK-101-T",
    "lsnet_b": "LSNet-B",
    "uniconvnet_t": "UniConvNet-T",
    "replknet_31b": "RepLKNet-31B",
}
LAYERS = (
    *(DepthwiseConv2d, PeripheralConv2d, FusedLSConv, DCNv3),
    *(LayerNorm2d, GlobalResponseNorm, SEModule),
)
TABLE_1 = [(4, 384, side, side) for side in (16, 32, 64)]  # UniRepLKNet's, batch 4 instead of 64
KERNELS = (3, 5, 7, 9, 11, 13, 17, 21, 25, 31, 51, 101)


def batch(side: int) -> int:
    """Images at once: about the same work on large and small maps."""
    return 1 if side >= 28 else 8


@cache
def met(name: str, side: int = 224) -> list[tuple[str, nn.Module, tuple[int, ...]]]:
    """(path, layer, shape of its input without the batch) of all LAYERS of a merged network."""
    found: list[tuple[str, nn.Module, tuple[int, ...]]] = []
    with torch.device("meta"):
        model = fuse(timm.create_model(name).eval())
        for path, layer in model.named_modules():
            if isinstance(layer, LAYERS):
                layer.register_forward_pre_hook(
                    lambda layer, inputs, path=path: found.append(
                        (path, layer, inputs[0].shape[1:])
                    )
                )
        model(torch.empty(1, 3, side, side))
    return found


def unique(kind: type, key=lambda layer: ()) -> Iterator[tuple[str, nn.Module, tuple[int, ...]]]:
    """(network and stage, layer, shape) of each kind of layer, equal ones once."""
    seen = set()
    for name, title in NETWORKS.items():
        for path, layer, shape in met(name):
            if not isinstance(layer, kind) or path.startswith("head"):
                continue
            if isinstance(layer, DepthwiseConv2dLast):  # another order of the shape; DCNv3's own
                continue
            mark = (*shape, key(layer))
            if mark not in seen:
                seen.add(mark)
                place = path.split(".")
                stage = f"stage {int(place[1]) + 1}" if place[0] == "stages" else place[0]
                yield f"{title} {stage}", layer, shape
