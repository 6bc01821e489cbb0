"""ConvNeXt's architecture with any depthwise mixer, for SLaK and PeLK.

ConvNeXt (arXiv 2201.03545): a 4 x 4 stem, layer norm before each downsampling, and residual blocks
of mixer -> LN -> linear -> GELU -> linear -> layer scale. timm's ConvNeXt has square kernels only,
and its layer scale cannot be fused.
Legend: N batch, C channels, H x W map.
"""

from collections.abc import Callable

import torch.nn.functional as F
from timm.layers import (
    DropPath,
    LayerNorm,
    LayerNorm2d,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
)
from torch import Tensor, nn

from ..errors import InputError
from ..layers.scaled_linear import ScaledLinear
from ._staged import (
    Stage,
    StagedNet,
    StageShape,
    check_four_entries,
    init_truncated_normal,
    stage_shapes,
)


class ConvNeXtBlock(nn.Module):
    """ConvNeXt's block with any mixer.

    Args:
        mixer: (N, C, H, W) -> (N, C, H, W).
        dim: C.
        drop_path: probability of dropping the residual branch.
        ls_init_value: initial layer scale.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        mixer: nn.Module,
        dim: int,
        drop_path: float = 0.0,
        ls_init_value: float = 1e-6,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.mixer = mixer
        self.norm = LayerNorm(dim, **dd)
        self.fc1 = nn.Linear(dim, 4 * dim, **dd)
        self.act = nn.GELU()
        self.fc2 = ScaledLinear(4 * dim, dim, ls_init_value, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.add_channel_mixing(x, self.mixer(x))

    def add_channel_mixing(self, x: Tensor, y: Tensor) -> Tensor:
        """x plus the second half of the block, applied to the mixer's output y."""
        y = self.norm(y.permute(0, 2, 3, 1))
        y = self.fc2(self.act(self.fc1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


class DenseConv2x2(nn.Conv2d):
    """ConvNeXt's 2 x 2 downsampling convolution with stride 1, for dilated networks.

    Its outputs at even rows and columns are those of stride 2; zeros are padded after the map.

    Shape: (N, in_channels, H, W) -> (N, out_channels, H, W)
    """

    def __init__(self, in_channels: int, out_channels: int, dilation: int, **dd):
        super().__init__(in_channels, out_channels, 2, dilation=dilation, **dd)

    def forward(self, x: Tensor) -> Tensor:
        padding = (0, self.dilation[1], 0, self.dilation[0])
        return F.conv2d(F.pad(x, padding), self.weight, self.bias, dilation=self.dilation)


def convnext_downsample(in_dim: int | None, dim: int, shape: StageShape, **dd) -> nn.Module:
    """Layer norm and the 2 x 2 downsampling convolution; an identity where `in_dim` is None."""
    if in_dim is None:
        return nn.Identity()
    if shape.stride == 1:
        conv = DenseConv2x2(in_dim, dim, shape.downsample_dilation, **dd)
    else:
        conv = nn.Conv2d(in_dim, dim, 2, stride=2, **dd)
    return nn.Sequential(LayerNorm2d(in_dim, **dd), conv)


def stage_widths(dims: tuple[int, ...], width_factor: float, multiple: int) -> list[int]:
    """Channels per stage: `dims` times `width_factor`, rounded down to a multiple.

    Raises:
        InputError: a multiple below 1, or a width that would be zero.
    """
    if multiple < 1:
        raise InputError(f"width_multiple must be at least 1, got {multiple}")
    widths = [int(dim * width_factor) // multiple * multiple for dim in dims]
    if min(widths) < 1:
        raise InputError(f"{dims=}, {width_factor=} and width_multiple={multiple} leave no channel")
    return widths


class ConvNeXtFrame(StagedNet):
    """Stem, four stages and head.

    Args:
        make_stage: (index of the stage, C of the stage before or None, C, drop path rate of each
            block, strides and dilation of the stage) -> the stage.
        dims: channels per stage, before `width_factor`.
        width_factor: factor on all channels, rounded down (SLaK, section 3.2: 1.3 with sparsity).
        width_multiple: round widths down to a multiple of this.
        output_stride: largest stride of the stages; see `stage_shapes`.
        The others are as in the families.
    """

    def __init__(
        self,
        make_stage: Callable[[int, int | None, int, list[float], StageShape], Stage],
        in_chans: int,
        num_classes: int,
        global_pool: str,
        depths: tuple[int, ...],
        dims: tuple[int, ...],
        width_factor: float,
        width_multiple: int,
        output_stride: int,
        head_init_scale: float,
        drop_rate: float,
        drop_path_rate: float,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        check_four_entries(depths=depths, dims=dims)
        widths = stage_widths(dims, width_factor, width_multiple)
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        shapes = stage_shapes(4, 4, output_stride)
        super().__init__(
            in_chans,
            num_classes,
            drop_rate,
            stem=nn.Sequential(
                nn.Conv2d(in_chans, widths[0], 4, stride=4, **dd), LayerNorm2d(widths[0], **dd)
            ),
            stages=[
                make_stage(i, widths[i - 1] if i else None, widths[i], rates[i], shapes[i])
                for i in range(4)
            ],
            dims=widths,
            shapes=shapes,
            head=NormMlpClassifierHead(
                widths[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd
            ),
        )
        self._init_weights(head_init_scale)

    def _init_weights(self, head_init_scale: float) -> None:
        init_truncated_normal(self, head_init_scale)
