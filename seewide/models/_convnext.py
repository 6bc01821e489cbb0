"""ConvNeXt's frame, in which SLaK and PeLK put their depthwise mixers.

ConvNeXt (arXiv 2201.03545): a 4 x 4 stem, layer norm before each downsampling, and blocks of
mixer -> LN -> linear -> GELU -> linear -> layer scale, beside an identity. timm's ConvNeXt takes
no other mixer than a square kernel and does not fold its layer scale.
Legend: N batch, C channels, H x W map.
"""

from collections.abc import Callable

from timm.layers import (
    DropPath,
    LayerNorm,
    LayerNorm2d,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
)
from torch import Tensor, nn

from ..layers.scaled_linear import ScaledLinear
from ._staged import Stage, StagedNet, four_each


class ConvNeXtBlock(nn.Module):
    """ConvNeXt's block around any mixer.

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
        return self.add_channels_mixed(x, self.mixer(x))

    def add_channels_mixed(self, x: Tensor, y: Tensor) -> Tensor:
        """x plus the second half of the block on y, the mixer's output."""
        y = self.norm(y.permute(0, 2, 3, 1))
        y = self.fc2(self.act(self.fc1(y)))
        return x + self.drop_path(y.permute(0, 3, 1, 2))


def convnext_downsample(in_dim: int | None, dim: int, **dd) -> nn.Module:
    """Layer norm and a 2 x 2 convolution of stride 2; an identity where `in_dim` is None."""
    if in_dim is None:
        return nn.Identity()
    return nn.Sequential(LayerNorm2d(in_dim, **dd), nn.Conv2d(in_dim, dim, 2, stride=2, **dd))


class ConvNeXtFrame(StagedNet):
    """Stem, four stages and head.

    Args:
        make_stage: (index of the stage, C of the stage before or None, C, drop path rate of each
            block) -> the stage.
        dims: channels per stage, before `width_factor`.
        width_factor: on all channels, rounded down (SLaK, section 3.2: 1.3, against sparsity).
    """

    def __init__(
        self,
        make_stage: Callable[[int, int | None, int, list[float]], Stage],
        in_chans: int,
        num_classes: int,
        global_pool: str,
        depths: tuple[int, ...],
        dims: tuple[int, ...],
        width_factor: float,
        head_init_scale: float,
        drop_rate: float,
        drop_path_rate: float,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        four_each(depths=depths, dims=dims)
        widths = [int(dim * width_factor) for dim in dims]
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        super().__init__(
            in_chans,
            num_classes,
            drop_rate,
            stem=nn.Sequential(
                nn.Conv2d(in_chans, widths[0], 4, stride=4, **dd), LayerNorm2d(widths[0], **dd)
            ),
            stages=[
                make_stage(i, widths[i - 1] if i else None, widths[i], rates[i]) for i in range(4)
            ],
            dims=widths,
            first_stride=4,
            head=NormMlpClassifierHead(
                widths[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd
            ),
        )
        self.init_weights(head_init_scale)
