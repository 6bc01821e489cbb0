"""Structures between the large kernel and the feed-forward network of a UniRepLKNet block.

"Scaling Up Your Kernels" (arXiv 2410.08049), section 3.2.1, Figure 7 and Table 3a. A large kernel
gives a network a wide receptive field without depth; the extra structure adds depth by mixing
channels and neighbouring pixels at a low cost. The published networks have
squeeze-and-excitation, the best one (ADE20K mIoU 46.5, against 45.1 without any structure); the
others are those of the paper's comparison.

Legend: N batch, C channels, H x W map.
"""

from timm.layers import SEModule
from torch import Tensor, nn

from ..errors import unknown
from .conv_norm import conv_norm_relu


class ResidualSequential(nn.Sequential):
    """x + layers(x)"""

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for layer in self:
            y = layer(y)
        return x + y


def bottleneck(dim: int, dilation: int = 1, **dd) -> nn.Module:
    """(A) 1x1 to C / 4, depthwise 3x3, 1x1 to C, with a residual connection (mIoU 46.3)."""
    hidden = dim // 4
    return ResidualSequential(
        *conv_norm_relu(dim, hidden, **dd),
        *conv_norm_relu(hidden, hidden, 3, groups=hidden, dilation=dilation, **dd),
        *conv_norm_relu(hidden, dim, **dd),
    )


def two_pointwise(dim: int, dilation: int = 1, **dd) -> nn.Module:
    """(B) The bottleneck without its 3x3: mixes channels, but no pixels (46.2)."""
    hidden = dim // 4
    return ResidualSequential(
        *conv_norm_relu(dim, hidden, **dd), *conv_norm_relu(hidden, dim, **dd)
    )


def two_depthwise(dim: int, dilation: int = 1, **dd) -> nn.Module:
    """(C) Two depthwise 3x3: mix neighbouring pixels, but no channels (45.4)."""
    return ResidualSequential(
        *conv_norm_relu(dim, dim, 3, groups=dim, dilation=dilation, **dd),
        *conv_norm_relu(dim, dim, 3, groups=dim, dilation=dilation, **dd),
    )


def squeeze_excite(dim: int, dilation: int = 1, **dd) -> nn.Module:
    """(D) Squeeze-and-excitation with C / 4 hidden channels (46.5)."""
    return SEModule(dim, rd_channels=dim // 4, **dd)


def nothing(dim: int, dilation: int = 1, **dd) -> nn.Module:
    """No extra structure (45.1)."""
    return nn.Identity()


EXTRA_STRUCTURES = {
    "se": squeeze_excite,
    "bottleneck": bottleneck,
    "two_pointwise": two_pointwise,
    "two_depthwise": two_depthwise,
    "none": nothing,
}


def extra_structure(name: str, dim: int, dilation: int = 1, device=None, dtype=None) -> nn.Module:
    """The structure of this name for C = `dim`; (N, C, H, W) -> (N, C, H, W).

    Args:
        name: a key of EXTRA_STRUCTURES.
        dim: C.
        dilation: of its 3x3 convolutions.

    Raises:
        InputError: an unknown name.
    """
    if name not in EXTRA_STRUCTURES:
        raise unknown("extra structure", name, EXTRA_STRUCTURES)
    return EXTRA_STRUCTURES[name](dim, dilation, device=device, dtype=dtype)
