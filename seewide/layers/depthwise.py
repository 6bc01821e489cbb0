"""`seewide.ops.depthwise_conv2d` as a layer."""

from torch import Tensor, nn

from ..errors import InputError
from ..ops import depthwise_conv2d


class DepthwiseConv2d(nn.Conv2d):
    """A depthwise `nn.Conv2d` with an odd kernel size, stride 1 and same padding.

    It computes `seewide.ops.depthwise_conv2d`. It is a subclass of `nn.Conv2d`, so that state
    dicts, weight initialization, cost counters and quantizers recognise it as a convolution.

    Args:
        channels: C.
        kernel_size: odd, or (height, width), both odd.
        dilation: distance between neighbouring taps.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: an even kernel size.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        dilation: int = 1,
        bias: bool = True,
        device=None,
        dtype=None,
    ):
        kh, kw = (kernel_size, kernel_size) if isinstance(kernel_size, int) else kernel_size
        if kh % 2 == 0 or kw % 2 == 0 or min(kh, kw) < 1:
            raise InputError(f"kernel_size must be odd, got {kernel_size}")
        super().__init__(
            channels,
            channels,
            (kh, kw),
            padding=(kh // 2 * dilation, kw // 2 * dilation),
            dilation=dilation,
            groups=channels,
            bias=bias,
            device=device,
            dtype=dtype,
        )

    def forward(self, x: Tensor) -> Tensor:
        return depthwise_conv2d(x, self.weight, self.bias, self.dilation[0])

    @classmethod
    def of(cls, weight: Tensor, bias: Tensor | None, dilation: int = 1) -> "DepthwiseConv2d":
        """The layer with this kernel (C, 1, kh, kw) and bias (C,)."""
        layer = cls(
            weight.shape[0],
            (weight.shape[2], weight.shape[3]),
            dilation,
            bias=bias is not None,
            device=weight.device,
            dtype=weight.dtype,
        )
        layer.weight = nn.Parameter(weight.detach().clone())
        if bias is not None:
            layer.bias = nn.Parameter(bias.detach().clone())
        return layer
