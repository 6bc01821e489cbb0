"""LS convolution and other token mixers that LSNet compares it with (arXiv 2503.23135).

Section 4.4 and Figure 5. `token_mixer` builds them by name; each maps (N, C, H, W) to (N, C, H, W).

Legend: N batch, C channels, H x W map.
"""

import torch
import torch.nn.functional as F
from timm.layers import DropPath
from torch import Tensor, nn

from ..errors import InputError, unknown
from ..ops import small_kernel_aggregation
from ..reparam import batch_norm_affine, fold_parallel
from .biased_attention import BiasedAttention, relative_biases, store_resolution
from .conv_norm import ConvNorm
from .depthwise import DepthwiseConv2d
from .dilated_reparam import ConvBranch
from .ls_conv import DepthwiseConvNorm, LSConv, StaticAggregation
from .phases import from_phases, to_phases

MIXERS = (
    *("ls", "static", "depthwise", "rep_mixer", "involution"),
    *("self_attention", "cascaded_group_attention", "none"),
)


class Residual(nn.Module):
    """x + drop_path(layer(x))"""

    def __init__(self, layer: nn.Module, drop_path: float = 0.0):
        super().__init__()
        self.layer = layer
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.layer(x))


class RepMixer(nn.Module):
    """FastViT's mixer (arXiv 2303.14189, section 3.2): scale * (M(x) - BN(x)).

    M is a depthwise 3x3 beside a depthwise 1x1 beside an identity, each with batch norm.

    Args:
        dim: C.
        dilation: of the 3x3 convolution.
        init_value: initial scale.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self, dim: int, dilation: int = 1, init_value: float = 1e-5, device=None, dtype=None
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.square = ConvBranch(dim, 3, dilation, **dd)
        self.point = ConvBranch(dim, 1, **dd)
        self.identity = nn.BatchNorm2d(dim, **dd)
        self.norm = nn.BatchNorm2d(dim, **dd)
        self.init_value = init_value
        self.scale = nn.Parameter(torch.empty(dim, **dd))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial scale."""
        nn.init.constant_(self.scale, self.init_value)

    def forward(self, x: Tensor) -> Tensor:
        y = self.square(x) + self.point(x) + self.identity(x) - self.norm(x)
        return y * self.scale[:, None, None]

    @torch.no_grad()
    def fuse(self) -> DepthwiseConv2d:
        """The one 3x3 convolution that computes the same in evaluation."""
        dilation = self.square.conv.dilation[0]
        plus, plus_shift = batch_norm_affine(self.identity)
        minus, minus_shift = batch_norm_affine(self.norm)
        point = (plus - minus)[:, None, None, None], plus_shift - minus_shift
        kernel, bias = fold_parallel([self.square.folded(dilation), self.point.folded(), point])
        scaled = kernel * self.scale[:, None, None, None], bias * self.scale
        return DepthwiseConv2d.of(*scaled, dilation)


class Involution(nn.Module):
    """Involution (arXiv 2103.06255): each pixel predicts its own kernel from itself alone.

    Args:
        dim: C.
        kernel_size: odd.
        group_width: number of channels that share each kernel; divides C.
        dilation: of the kernel.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: a group width that does not divide C.
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int = 7,
        group_width: int = 8,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if group_width < 1 or dim % group_width:
            raise InputError(f"group_width must divide {dim=}, got {group_width=}")
        dd = {"device": device, "dtype": dtype}
        self.sets, self.dilation = dim // group_width, dilation
        self.reduce = ConvNorm(dim, dim // 4, **dd)
        self.act = nn.ReLU()
        self.to_weight = nn.Conv2d(dim // 4, self.sets * kernel_size**2, 1, **dd)
        self.norm = nn.BatchNorm2d(dim, **dd)

    def forward(self, x: Tensor) -> Tensor:
        d, H, W = self.dilation, x.shape[2], x.shape[3]
        weight = self.to_weight(self.act(self.reduce(x)))
        weight = to_phases(weight, d).unflatten(1, (self.sets, -1))
        y = small_kernel_aggregation(to_phases(x, d), weight)
        return self.norm(from_phases(y, d, H, W))


def _tokens(x: Tensor) -> Tensor:
    """(N, D, H, W) -> (N, 1, H * W, D), one head."""
    return x.flatten(2).transpose(1, 2).unsqueeze(1)


class CascadedGroupAttention(nn.Module):
    """EfficientViT's attention (arXiv 2305.07027, section 3.2): each head has a part of the
    channels as input, to which the output of the head before is added.

    Args:
        dim: C.
        num_heads: number of heads; divides C.
        key_dim: channels of the queries and keys of a head.
        kernel_size: of the depthwise convolution on the queries.
        resolution: (height, width) of the map that the biases are stored for.
        dilation: of the depthwise convolutions.

    Shape: (N, C, H, W) -> (N, C, H, W), any H and W

    Raises:
        InputError: a number of heads that does not divide C.
    """

    def __init__(
        self,
        dim: int,
        num_heads: int = 4,
        key_dim: int = 16,
        kernel_size: int = 5,
        resolution: tuple[int, int] = (14, 14),
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if num_heads < 1 or dim % num_heads:
            raise InputError(f"num_heads must divide {dim=}, got {num_heads=}")
        dd = {"device": device, "dtype": dtype}
        self.head_dim, self.resolution = dim // num_heads, resolution
        self.widths = [key_dim, key_dim, self.head_dim]
        self.qkv = nn.ModuleList(
            ConvNorm(self.head_dim, sum(self.widths), **dd) for _ in range(num_heads)
        )
        self.dw = nn.ModuleList(
            DepthwiseConvNorm(key_dim, kernel_size, dilation, **dd) for _ in range(num_heads)
        )
        self.act = nn.ReLU()
        self.proj = ConvNorm(dim, dim, **dd)
        self.attention_biases = nn.Parameter(
            torch.empty(num_heads, resolution[0] * resolution[1], **dd)
        )
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Zero biases, and a zero weight of the last norm: a residual block starts as identity."""
        nn.init.zeros_(self.attention_biases)
        nn.init.zeros_(self.proj.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        biases = relative_biases(self.attention_biases, self.resolution, x)
        parts = x.split(self.head_dim, dim=1)
        y, outputs = torch.zeros_like(parts[0]), []
        for i, (qkv, dw) in enumerate(zip(self.qkv, self.dw)):  # noqa: B905 (TorchScript)
            q, k, v = qkv(parts[i] + y).split(self.widths, dim=1)
            q, k, v = _tokens(dw(q)), _tokens(k), _tokens(v)
            bias = biases[None, i : i + 1].to(q.dtype)
            y = F.scaled_dot_product_attention(q, k, v, bias)
            y = y[:, 0].transpose(1, 2).reshape(parts[0].shape)
            outputs.append(y)
        return self.proj(self.act(torch.cat(outputs, dim=1)))

    @torch.jit.ignore
    def set_resolution(self, resolution: tuple[int, int]) -> None:
        """Store the biases for maps of another size."""
        store_resolution(self, resolution)


def token_mixer(
    name: str, dim: int, sizes: tuple[int, int, int], num_heads: int, key_dim: int, attention: dict
) -> nn.Module:
    """The token mixer with its residual connection.

    Args:
        name: one of MIXERS.
        dim: C.
        sizes: K_L, K_S and group width.
        num_heads: heads of attention.
        key_dim: channels of the queries and keys of a head.
        attention: resolution and dilation, device and dtype.

    Raises:
        InputError: an unknown name, or dimensions that do not fit.
    """
    large_kernel, small_kernel, group_width = sizes
    dd = {key: value for key, value in attention.items() if key != "resolution"}
    if name == "ls":
        return LSConv(dim, large_kernel, small_kernel, group_width, **dd)
    if name == "static":
        return StaticAggregation(dim, large_kernel, small_kernel, **dd)
    if name == "depthwise":
        return Residual(DepthwiseConvNorm(dim, large_kernel, **dd))
    if name == "rep_mixer":
        return Residual(RepMixer(dim, **dd))
    if name == "involution":
        return Residual(Involution(dim, large_kernel, group_width, **dd))
    if name == "self_attention":
        return Residual(BiasedAttention(dim, num_heads, key_dim, **attention))
    if name == "cascaded_group_attention":
        return Residual(CascadedGroupAttention(dim, num_heads, key_dim, **attention))
    if name == "none":
        return nn.Identity()
    raise unknown("mixer", name, MIXERS)
