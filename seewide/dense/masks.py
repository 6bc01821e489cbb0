"""Instance masks: what a mask head learns, and from its 28 x 28 maps to masks of the image.

Written from facts about mmdetection 2.28 (`BitmapMasks.crop_and_resize`, `FCNMaskHead`).
Legend: B boxes, H x W the image, h x w the head's map.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torchvision.ops import roi_align

from .boxes import Size, clip_boxes

ELEMENTS_AT_ONCE = 64_000_000  # of pasted masks; 256 MB in float32


def mask_targets(masks: Tensor, boxes: Tensor, objects: Tensor, size: int = 28) -> Tensor:
    """The part of an object's mask inside a box, as `size` x `size` zeros and ones.

    Args:
        masks: (G, H, W) of zeros and ones.
        boxes: (B, 4), clipped to H x W here.
        objects: (B,) indices into `masks`.

    Returns: (B, size, size) float; 1 where at least half of a cell is covered.
    """
    used, index = objects.unique(return_inverse=True)
    boxes = clip_boxes(boxes.float(), masks.shape[-2:])
    rois = torch.cat([index[:, None].to(boxes), boxes], 1)
    cells = roi_align(masks[used, None].float(), rois, (size, size), 1.0, 0, aligned=True)
    return (cells[:, 0] >= 0.5).float()


def paste_masks(masks: Tensor, boxes: Tensor, size: Size) -> Tensor:
    """`masks` (B, h, w) stretched to `boxes` (B, 4) in images of `size`: (B, H, W).

    A pixel's value is interpolated bilinearly at its centre, zero outside of the map. Bilinear
    interpolation is separable, so that this is a product of an (H, h), the (h, w) and a (w, W)
    matrix. mmdetection's `grid_sample` gives the same but for boxes without width or height, which
    are empty here.
    """
    height, width = size
    x = _weights(boxes[:, 0], boxes[:, 2], width, masks.shape[2])
    y = _weights(boxes[:, 1], boxes[:, 3], height, masks.shape[1])
    return y @ masks.to(y) @ x.transpose(1, 2)


def paste_binary(masks: Tensor, boxes: Tensor, size: Size, threshold: float = 0.5) -> Tensor:
    """`paste_masks(...) >= threshold`, in parts that fit into memory: (B, H, W) bool."""
    if torch.compiler.is_exporting():
        return paste_masks(masks, boxes, size) >= threshold
    step = max(1, ELEMENTS_AT_ONCE // max(1, size[0] * size[1]))
    parts = [
        paste_masks(some, where, size) >= threshold
        for some, where in zip(masks.split(step), boxes.split(step), strict=True)
    ]
    return torch.cat(parts)


def _weights(low: Tensor, high: Tensor, pixels: int, cells: int) -> Tensor:
    """Weight of each of `cells` in each of `pixels`, for intervals low..high (B,): (B, pixels,
    cells)."""
    centre = torch.arange(pixels, device=low.device, dtype=low.dtype) + 0.5
    length = (high - low).clamp(min=1e-6)
    position = (centre - low[:, None]) / length[:, None] * cells - 0.5
    cell = torch.arange(cells, device=low.device, dtype=low.dtype)
    return (1 - (position[..., None] - cell).abs()).clamp(min=0)
