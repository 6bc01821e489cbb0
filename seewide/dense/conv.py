"""Convolution blocks of the heads, with the key names of mmcv: `conv`, `bn`, `depthwise_conv`,
`pointwise_conv`.

Written from facts about mmcv 1.7 (`ConvModule`, `DepthwiseSeparableConvModule`).
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn


class ConvModule(nn.Module):
    """Convolution, optional batch norm, optional activation.

    Args:
        in_channels: channels of the input.
        channels: channels of the output.
        kernel_size: side of the kernel.
        stride: of the convolution.
        padding: of the convolution; None pads so that stride 1 keeps the size.
        dilation: of the convolution.
        groups: of the convolution.
        norm: batch norm instead of a bias.
        activation: builds the activation; None for none.
        eps: of the batch norm.
        momentum: of the batch norm.

    Shape: (N, in_channels, H, W) -> (N, channels, H', W')
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 1,
        *,
        stride: int = 1,
        padding: int | None = None,
        dilation: int = 1,
        groups: int = 1,
        norm: bool = True,
        activation: Callable[[], nn.Module] | None = nn.ReLU,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ):
        super().__init__()
        if padding is None:
            padding = dilation * (kernel_size // 2)
        self.conv = nn.Conv2d(
            in_channels, channels, kernel_size, stride, padding, dilation, groups, bias=not norm
        )
        self.bn = nn.BatchNorm2d(channels, eps, momentum) if norm else nn.Identity()
        self.act = activation() if activation else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.act(self.bn(self.conv(x)))


class DepthwiseSeparableConv(nn.Module):
    """Depthwise k x k and pointwise 1 x 1 convolution, each with batch norm and activation.

    Args: see `ConvModule`; `stride`, `padding` are of the depthwise convolution.

    Shape: (N, in_channels, H, W) -> (N, channels, H', W')
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        kernel_size: int = 3,
        *,
        stride: int = 1,
        padding: int | None = None,
        activation: Callable[[], nn.Module] = nn.ReLU,
        eps: float = 1e-5,
        momentum: float = 0.1,
    ):
        super().__init__()
        shared = {"activation": activation, "eps": eps, "momentum": momentum}
        self.depthwise_conv = ConvModule(
            in_channels,
            in_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            groups=in_channels,
            **shared,
        )
        self.pointwise_conv = ConvModule(in_channels, channels, **shared)

    def forward(self, x: Tensor) -> Tensor:
        return self.pointwise_conv(self.depthwise_conv(x))
