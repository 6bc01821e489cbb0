"""Dilation for operators that have none.

A dilation of d never mixes pixels whose rows or columns differ modulo d. So a dilated operator of
stride 1 equals the plain operator on each of the d * d maps that take every d-th pixel (phases).
"""

import torch.nn.functional as F
from torch import Tensor


def to_phases(x: Tensor, dilation: int) -> Tensor:
    """Every `dilation`-th pixel as a map of its own, with zeros beyond the border.

    Shape: (N, C, H, W) -> (N * d * d, C, ceil(H / d), ceil(W / d))
    """
    if dilation == 1:
        return x
    N, C, H, W = x.shape
    d = dilation
    h, w = (H + d - 1) // d, (W + d - 1) // d
    x = F.pad(x, (0, w * d - W, 0, h * d - H))
    return x.reshape(N, C, h, d, w, d).permute(0, 3, 5, 1, 2, 4).reshape(N * d * d, C, h, w)


def from_phases(y: Tensor, dilation: int, height: int, width: int) -> Tensor:
    """The inverse of `to_phases`, cropped to `height` x `width`.

    Shape: (N * d * d, C, h, w) -> (N, C, height, width)
    """
    if dilation == 1:
        return y
    n, C, h, w = y.shape
    d = dilation
    y = y.reshape(n // (d * d), d, d, C, h, w).permute(0, 3, 4, 1, 5, 2)
    return y.reshape(n // (d * d), C, h * d, w * d)[:, :, :height, :width]
