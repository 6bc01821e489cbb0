"""Anchors: boxes of fixed sizes at each cell of each pyramid level.

Written from facts about mmdetection 2.28. Within a cell the ratio is the outer index and the scale
the inner one; cells are row-major; boxes are not rounded, and strides are the nominal ones,
whatever the image. Legend: A anchors of a level, in the order (row, column, anchor of the cell).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor

from .boxes import Size


class AnchorGenerator:
    """Base of the two kinds: `cell_anchors` of a level repeated at each of its cells.

    Args:
        strides: distance of neighbouring cells in pixels, per level.
        cell_anchors: (x1, y1, x2, y2) of the anchors of cell (0, 0), per level.
    """

    def __init__(
        self,
        strides: Sequence[int],
        cell_anchors: Sequence[Sequence[tuple[float, float, float, float]]],
    ):
        self.strides = tuple(strides)
        self.cell_anchors = [torch.tensor(level, dtype=torch.float64) for level in cell_anchors]

    @property
    def per_cell(self) -> list[int]:
        """Anchors of a cell, per level."""
        return [len(level) for level in self.cell_anchors]

    def __call__(self, sizes: Sequence[Size], like: Tensor) -> list[Tensor]:
        """Anchors (A, 4) of each level, for maps of `sizes`, with device and dtype of `like`."""
        return [
            self._level(level, size, like) for level, size in enumerate(sizes[: len(self.strides)])
        ]

    def _level(self, level: int, size: Size, like: Tensor) -> Tensor:
        height, width = size
        stride = self.strides[level]
        x = torch.arange(width, device=like.device) * stride
        y = torch.arange(height, device=like.device) * stride
        x, y = x.expand(height, width), y[:, None].expand(height, width)
        shifts = torch.stack([x, y, x, y], -1).to(like.dtype)
        return (shifts[:, :, None] + self.cell_anchors[level].to(like)).reshape(-1, 4)

    def valid(self, sizes: Sequence[Size], padded: Size, device: torch.device) -> Tensor:
        """Which anchors of all levels have their cell inside an image padded to `padded`.

        A batch may be padded further than this image; cells there take no part in training.
        """
        flags = []
        for (height, width), stride, count in zip(sizes, self.strides, self.per_cell, strict=False):
            rows = torch.arange(height, device=device) < -(-padded[0] // stride)
            columns = torch.arange(width, device=device) < -(-padded[1] // stride)
            cells = rows[:, None] & columns
            flags.append(cells[..., None].expand(height, width, count).reshape(-1))
        return torch.cat(flags)


@dataclass(frozen=True)
class GridAnchors:
    """Anchors of `scale` x stride at height / width `ratio`, centred at the origin of their cell.

    `GridAnchors(...)()` is the generator. RPN: scales (8,); RetinaNet: 4 x 2^(0, 1/3, 2/3).
    """

    strides: tuple[int, ...]
    scales: tuple[float, ...] = (8.0,)
    ratios: tuple[float, ...] = (0.5, 1.0, 2.0)

    def __call__(self) -> AnchorGenerator:
        levels = []
        for stride in self.strides:
            halves = [
                (stride * scale / sqrt(ratio) / 2, stride * scale * sqrt(ratio) / 2)
                for ratio in self.ratios
                for scale in self.scales
            ]
            levels.append([(-w, -h, w, h) for w, h in halves])
        return AnchorGenerator(self.strides, levels)


def octave_scales(base: float = 4.0, count: int = 3) -> tuple[float, ...]:
    """`count` scales within an octave, from `base`; RetinaNet (1708.02002), section 4."""
    return tuple(base * 2 ** (i / count) for i in range(count))


@dataclass(frozen=True)
class SSDAnchors:
    """Anchors of SSD (1512.02325), section 2.2, in mmdetection's order, centred in their cell.

    Sides of a cell: smallest; sqrt(smallest x largest); then the smallest at each height / width
    of 1/r, r for r in `ratios`.
    """

    strides: tuple[int, ...] = (16, 32, 64, 107, 160, 320)
    min_sizes: tuple[int, ...] = (48, 100, 150, 202, 253, 304)
    max_sizes: tuple[int, ...] = (100, 150, 202, 253, 304, 320)
    ratios: tuple[int, ...] = (2, 3)

    def __call__(self) -> AnchorGenerator:
        levels = []
        for stride, low, high in zip(self.strides, self.min_sizes, self.max_sizes, strict=True):
            sides = [(low, 1.0), (sqrt(low * high), 1.0)]
            sides += [(low, r) for ratio in self.ratios for r in (1 / ratio, ratio)]
            halves = [(side / sqrt(r) / 2, side * sqrt(r) / 2) for side, r in sides]
            c = stride / 2
            levels.append([(c - w, c - h, c + w, c + h) for w, h in halves])
        return AnchorGenerator(self.strides, levels)
