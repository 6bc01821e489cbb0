"""`seewide.ops.dcnv3` as a layer, channels last.

InternImage (arXiv 2211.05778, section 3.1). UniConvNet (2508.09000) has no softmax, and neither
norm nor activation after the depthwise convolution that precedes the offsets; the names of the
parameters are those of its authors.
"""

from timm.layers import LayerNorm
from torch import Tensor, nn

from ..errors import InputError
from ..ops import dcnv3, depthwise_conv2d
from .depthwise import DepthwiseConv2d


class DepthwiseConv2dLast(DepthwiseConv2d):
    """`DepthwiseConv2d` for channels-last tensors.

    Shape: (N, H, W, C) -> (N, H, W, C)
    """

    def forward(self, x: Tensor) -> Tensor:
        x_NCHW = x.permute(0, 3, 1, 2)
        y_NCHW = depthwise_conv2d(x_NCHW, self.weight, self.bias, self.dilation[0])
        return y_NCHW.permute(0, 2, 3, 1)


class DCNv3(nn.Module):
    """Deformable convolution whose offsets and masks come from a small depthwise convolution.

    Offsets and masks are initialized with zeros, as in the authors' code: at first every sampling
    point is a pixel and, without softmax, the output is the bias of the last projection.

    Args:
        dim: C.
        group_channels: channels that share offsets and mask; divides C.
        kernel_size: odd side of the grid of sampled points.
        offset_scale: factor on the grid and the offsets.
        softmax: whether masks sum to one, as in InternImage.
        norm_act: whether layer norm and GELU follow the depthwise convolution, as in InternImage.
        dilation: of the depthwise convolution, of the grid and of the unit of offsets.

    Shape: (N, H, W, C) -> (N, H, W, C)

    Raises:
        InputError: channels that do not divide into groups, or an even kernel size.
    """

    def __init__(
        self,
        dim: int,
        group_channels: int = 16,
        kernel_size: int = 3,
        offset_scale: float = 1.0,
        softmax: bool = False,
        norm_act: bool = False,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if group_channels < 1 or dim % group_channels:
            raise InputError(
                f"dim must be a multiple of group_channels, got {dim=}, {group_channels=}"
            )
        dd = {"device": device, "dtype": dtype}
        self.groups = dim // group_channels
        self.kernel_size = kernel_size
        self.offset_scale = offset_scale * dilation
        self.softmax = softmax
        points = self.groups * kernel_size**2
        self.dw_conv = nn.Sequential(DepthwiseConv2dLast(dim, kernel_size, dilation, **dd))
        if norm_act:
            self.dw_conv.extend([LayerNorm(dim, **dd), nn.GELU()])
        self.offset = nn.Linear(dim, 2 * points, **dd)
        self.mask = nn.Linear(dim, points, **dd)
        self.input_proj = nn.Linear(dim, dim, **dd)
        self.output_proj = nn.Linear(dim, dim, **dd)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero offsets and masks, Xavier uniform projections, zero biases."""
        for layer in (self.offset, self.mask):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in (self.input_proj, self.output_proj):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        context = self.dw_conv(x)
        y = dcnv3(
            self.input_proj(x),
            self.offset(context),
            self.mask(context),
            kernel_size=self.kernel_size,
            groups=self.groups,
            offset_scale=self.offset_scale,
            softmax=self.softmax,
        )
        return self.output_proj(y)
