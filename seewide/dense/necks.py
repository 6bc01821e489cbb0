"""Necks: from the maps of a backbone to a pyramid. Key names are mmdetection's.

FPN: 1612.03144. LSNetFPN: the authors' code of LSNet (2503.23135). SSDNeck: EMO's configuration of
mmdetection's (2301.01146). Legend: maps ordered fine to coarse, each (N, C_i, H_i, W_i).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError
from .conv import ConvModule, DepthwiseSeparableConv


def _plain(in_channels: int, channels: int, kernel_size: int, stride: int = 1) -> ConvModule:
    """A convolution with bias and nothing else, under the key `conv`."""
    conv = ConvModule(
        in_channels, channels, kernel_size, stride=stride, norm=False, activation=None
    )
    nn.init.xavier_uniform_(conv.conv.weight)
    nn.init.zeros_(conv.conv.bias)
    return conv


class FPN(nn.Module):
    """Feature pyramid network: 1x1 laterals, top-down sums of nearest upsampling, 3x3 outputs.

    Args:
        in_channels: of the backbone's maps.
        channels: of every output.
        num_outs: outputs; those beyond the backbone's maps are `extra`.
        extra: "pool" takes every second pixel of the last output; "on_input" applies a 3x3
            convolution of stride 2 to the backbone's last map, and further ones to its output,
            without activation between.

    Shape: list of (N, in_channels[i], H_i, W_i) -> list of `num_outs` maps (N, channels, H_i, W_i)
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        num_outs: int = 5,
        extra: str = "pool",
    ):
        super().__init__()
        if extra not in ("pool", "on_input"):
            raise InputError(f"extra must be 'pool' or 'on_input', got {extra!r}")
        beyond = num_outs - len(in_channels)
        self.extra = extra
        self.num_outs = num_outs
        self.lateral_convs = nn.ModuleList(_plain(c, channels, 1) for c in in_channels)
        self.fpn_convs = nn.ModuleList(_plain(channels, channels, 3) for _ in in_channels)
        if extra == "on_input":
            sources = [in_channels[-1], *[channels] * beyond][:beyond]
            self.fpn_convs.extend(_plain(c, channels, 3, stride=2) for c in sources)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        laterals = self.laterals(maps)
        outs = [conv(x) for conv, x in zip(self.fpn_convs[: len(laterals)], laterals, strict=True)]
        return self.extended(outs, maps[-1])

    def laterals(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """The laterals after the top-down sums, fine to coarse."""
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, maps, strict=True)]
        for i in range(len(laterals) - 1, 0, -1):
            size = laterals[i - 1].shape[-2:]
            laterals[i - 1] = laterals[i - 1] + F.interpolate(laterals[i], size, mode="nearest")
        return laterals

    def extended(self, outs: list[Tensor], last_map: Tensor) -> list[Tensor]:
        """`outs` and the extra levels."""
        if self.extra == "on_input":
            x = last_map
            for conv in self.fpn_convs[len(self.lateral_convs) :]:
                x = conv(x)
                outs.append(x)
        while len(outs) < self.num_outs:
            outs.append(F.max_pool2d(outs[-1], 1, stride=2))
        return outs


class LSNetFPN(FPN):
    """FPN with an optional first output of twice the resolution, by a transposed convolution.

    LSNet's maps have strides 8 to 64; Mask R-CNN wants one of stride 4 too.

    Args:
        upsampled: whether there is that first output: a transposed 2x2 convolution of stride 2 on
            the finest lateral, then a 3x3 convolution. It is one of `num_outs`.
        others: see `FPN`.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        channels: int = 256,
        num_outs: int = 5,
        extra: str = "pool",
        upsampled: bool = False,
    ):
        super().__init__(in_channels, channels, num_outs, extra)
        self.upsampled = upsampled
        count = int(upsampled)
        self.extra_trans_convs = nn.ModuleList(_Transposed(channels) for _ in range(count))
        self.extra_fpn_convs = nn.ModuleList(_plain(channels, channels, 3) for _ in range(count))

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        laterals = self.laterals(maps)
        outs = []
        if self.upsampled:
            outs = [self.extra_fpn_convs[0](self.extra_trans_convs[0](laterals[0]))]
        outs += [conv(x) for conv, x in zip(self.fpn_convs[: len(laterals)], laterals, strict=True)]
        return self.extended(outs, maps[-1])


class _Transposed(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels, channels, 2, stride=2)
        nn.init.xavier_uniform_(self.conv.weight)
        nn.init.zeros_(self.conv.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


SSD_NORM = {"eps": 1e-3, "momentum": 0.03}


class SSDNeck(nn.Module):
    """SSDLite's extra levels: 1x1 to half of the channels, then a depthwise separable 3x3 of
    stride 2, each with batch norm and ReLU6. The backbone's maps pass unchanged.

    Args:
        in_channels: of the backbone's maps, of strides 16 and 32.
        extra_channels: of the extra levels.

    Shape: list of maps -> the same and one map more for each of `extra_channels`
    """

    def __init__(
        self, in_channels: Sequence[int], extra_channels: Sequence[int] = (512, 256, 256, 128)
    ):
        super().__init__()
        self.channels = (*in_channels, *extra_channels)
        layers = []
        for before, after in zip(
            (in_channels[-1], *extra_channels[:-1]), extra_channels, strict=True
        ):
            layers.append(
                nn.Sequential(
                    ConvModule(before, after // 2, activation=nn.ReLU6, **SSD_NORM),
                    DepthwiseSeparableConv(
                        after // 2, after, stride=2, activation=nn.ReLU6, **SSD_NORM
                    ),
                )
            )
        self.extra_layers = nn.ModuleList(layers)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.trunc_normal_(module.weight, std=0.03)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        outs = list(maps)
        for layer in self.extra_layers:
            outs.append(layer(outs[-1]))
        return outs
