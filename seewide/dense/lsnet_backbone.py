"""LSNet as the authors use it for detection and segmentation: other attention biases.

Their classification network stores biases for the 4 x 4 map of a 224 px image. Their downstream
one stores them for 14 x 14, and at each call resizes the matrix of the biases of all pairs of
pixels, (heads, 196, 196), to the map's (heads, H W, H W), as if it were an image: bicubic, without
aligned corners. That differs from resizing the table wherever the map is not 14 x 14 (by 0.7% of
the largest value on the last map of a 256 x 320 image), and is needed for the published weights.
Legend: heads, distances of a side x side map, N images, C channels.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from ..layers import BiasedAttention, distance_index

SIDE = 14


def resize_table(table: Tensor, side: int = SIDE) -> Tensor:
    """Biases (heads, s * s) of an s x s map for a side x side map, bicubic: (heads, side^2).

    The authors' way from ImageNet weights to the downstream network.
    """
    old = round(table.shape[1] ** 0.5)
    if old == side:
        return table
    grid = table.reshape(1, -1, old, old)
    grid = F.interpolate(grid, [side, side], mode="bicubic", align_corners=False)
    return grid[0].flatten(1)


def bias_matrix(table: Tensor, height: int, width: int) -> Tensor:
    """Biases between all pixels of an H x W map from a table (heads, side^2): (heads, HW, HW)."""
    side = round(table.shape[1] ** 0.5)
    matrix = table[:, distance_index(side, side, table.device)]
    size = [height * width, height * width]
    if list(matrix.shape[1:]) == size:
        return matrix
    return F.interpolate(matrix[None], size, mode="bicubic", align_corners=False)[0]


class MatrixBiasedAttention(BiasedAttention):
    """`BiasedAttention` whose matrix of biases, not their table, is resized to the map.

    Args:
        attention: the attention to take over; its table is resized to 14 x 14.

    Shape: (N, C, H, W) -> (N, C, H, W), any H and W
    """

    def __init__(self, attention: BiasedAttention):
        nn.Module.__init__(self)
        self.num_heads = attention.num_heads
        self.widths = attention.widths
        self.resolution = (SIDE, SIDE)
        for name, module in attention.named_children():
            self.add_module(name, module)
        table = attention.attention_biases
        self.attention_biases = nn.Parameter(resize_table(table.detach()), table.requires_grad)

    def biases(self, x: Tensor) -> Tensor:
        return bias_matrix(self.attention_biases, x.shape[2], x.shape[3])


def use_matrix_biases(backbone: nn.Module) -> nn.Module:
    """Replace each `BiasedAttention` of `backbone` by a `MatrixBiasedAttention`; returns it."""
    for module in list(backbone.modules()):
        for name, child in list(module.named_children()):
            if type(child) is BiasedAttention:
                setattr(module, name, MatrixBiasedAttention(child))
    return backbone
