"""Fusion of two feature maps, or of a map and the words of a sentence.

Papers: "Scaling Up Your Kernels" (arXiv 2410.08049, section 3.4: one is the kernel of the other's
convolution), RefVOS (2010.00263: element-wise product), ACM (asymmetric convolution module, as
Table 15 of 2410.08049 compares with: a convolution of each, broadcast and added).

Legend: N batch, C channels, H x W map, h x w second map, L words, D their width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, unknown
from ..ops import asymmetric_conv

FUSIONS = ("asymmetric", "product", "acm")


class Fusion(nn.Module):
    """A map (N, C, H, W) changed by a second map (N, D, h, w) or by words (N, D, L).

    Args:
        channels: C.
        other_channels: D, projected to C first.
        kind: "asymmetric": the second is the kernel of a depthwise large-kernel convolution over
            the first, `delta + alpha * kernel` with alpha 0 at the start; a batch norm and a
            shortcut around both follow. "product": RefVOS' element-wise product with the mean of
            the second. "acm": convolutions of both, the mean of the second broadcast, added, then
            ReLU and a convolution.
        kernel_size: the second is pooled to this odd size; 0 keeps its own. Words become
            (1, kernel_size), along the longer axis of the map.
        normalize: of the asymmetric kernel, see `seewide.ops.asymmetric_conv`.

    Shape: (N, C, H, W), (N, D, h, w) or (N, D, L) -> (N, C, H, W)

    Raises:
        InputError: an unknown kind, or an even kernel size.
    """

    def __init__(
        self,
        channels: int,
        other_channels: int,
        kind: str = "asymmetric",
        kernel_size: int = 0,
        normalize: str = "size",
    ):
        super().__init__()
        if kind not in FUSIONS:
            raise unknown("fusion", kind, FUSIONS)
        if kernel_size < 0 or (kernel_size and kernel_size % 2 == 0):
            raise InputError(f"kernel_size must be odd, or 0 for the map's own, got {kernel_size}")
        self.kind, self.kernel_size, self.normalize = kind, kernel_size, normalize
        self.project = nn.Conv1d(other_channels, channels, 1)
        if kind == "asymmetric":
            self.alpha = nn.Parameter(torch.zeros(channels))
            self.norm = nn.BatchNorm2d(channels)
        elif kind == "acm":
            self.own = nn.Conv2d(channels, channels, 1)
            self.out = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, other: Tensor, mask: Tensor | None = None) -> Tensor:
        """See the class.

        Args:
            x: the map.
            other: the second map or the words.
            mask: (N, h, w) or (N, L), True where `other` is real.
        """
        size = other.shape[2:]
        kernel = self.project(other.flatten(2)).reshape(len(other), -1, *size)
        if self.kind == "asymmetric":
            pooled = self.kernel_size or None
            y = asymmetric_conv(
                x, kernel, mask, self.alpha, normalize=self.normalize, resize=pooled
            )
            return x + self.norm(y)
        flat = kernel.flatten(2)
        if mask is None:
            mean = flat.mean(2)
        else:
            real = mask.flatten(1)[:, None].to(flat.dtype)
            mean = (flat * real).sum(2) / real.sum(2).clamp_min(1)
        mean = mean[:, :, None, None]
        if self.kind == "product":
            return x * mean
        return self.out(F.relu(self.own(x) + mean))

    def extra_repr(self) -> str:
        return f"kind={self.kind!r}, kernel_size={self.kernel_size}"
