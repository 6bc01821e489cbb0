"""What UniRepLKNet's block puts between its large kernel and its feed-forward, to be deeper.

"Scaling Up Your Kernels" (arXiv 2410.08049), section 3.2.1, Figure 7 and Table 3a. A large kernel
sees wide without depth; what deepens the network should mix channels and look around at little
cost. Squeeze-and-excitation does both best (ADE20K mIoU 46.5, against 45.1 without anything) and
is what the published networks have; the others are the paper's comparison.

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


def bottleneck(dim: int, **dd) -> nn.Module:
    """(A) 1x1 to C / 4, depthwise 3x3, 1x1 back, beside an identity (mIoU 46.3)."""
    hidden = dim // 4
    return ResidualSequential(
        *conv_norm_relu(dim, hidden, **dd),
        *conv_norm_relu(hidden, hidden, 3, groups=hidden, **dd),
        *conv_norm_relu(hidden, dim, **dd),
    )


def two_pointwise(dim: int, **dd) -> nn.Module:
    """(B) The bottleneck without its 3x3: channels mix, and no pixel sees another (46.2)."""
    hidden = dim // 4
    return ResidualSequential(
        *conv_norm_relu(dim, hidden, **dd), *conv_norm_relu(hidden, dim, **dd)
    )


def two_depthwise(dim: int, **dd) -> nn.Module:
    """(C) Two depthwise 3x3: pixels see each other, and no channels mix (45.4)."""
    return ResidualSequential(
        *conv_norm_relu(dim, dim, 3, groups=dim, **dd),
        *conv_norm_relu(dim, dim, 3, groups=dim, **dd),
    )


def squeeze_excite(dim: int, **dd) -> nn.Module:
    """(D) Each channel scaled by what the pooled channels, at C / 4, say (46.5)."""
    return SEModule(dim, rd_channels=dim // 4, **dd)


def nothing(dim: int, **dd) -> nn.Module:
    """The network without any (45.1)."""
    return nn.Identity()


EXTRA_STRUCTURES = {
    "se": squeeze_excite,
    "bottleneck": bottleneck,
    "two_pointwise": two_pointwise,
    "two_depthwise": two_depthwise,
    "none": nothing,
}


def extra_structure(name: str, dim: int, device=None, dtype=None) -> nn.Module:
    """The structure of this name for C = `dim`; (N, C, H, W) -> (N, C, H, W).

    Raises:
        InputError: a name that EXTRA_STRUCTURES does not have.
    """
    if name not in EXTRA_STRUCTURES:
        raise unknown("extra structure", name, EXTRA_STRUCTURES)
    return EXTRA_STRUCTURES[name](dim, device=device, dtype=dtype)
