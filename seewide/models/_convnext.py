"""ConvNeXt's frame, in which SLaK and PeLK put their depthwise mixers.

ConvNeXt (arXiv 2201.03545): a 4 x 4 stem, layer norm before each downsampling, and blocks of
mixer -> LN -> linear -> GELU -> linear -> layer scale, beside an identity. timm's ConvNeXt takes
no other mixer than a square kernel and does not fold its layer scale.
Legend: N batch, C channels, H x W map.
"""

from collections.abc import Callable

import torch
from timm.layers import (
    DropPath,
    LayerNorm,
    LayerNorm2d,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
)
from timm.models import checkpoint_seq
from torch import Tensor, nn

from ..errors import InputError
from ..layers.scaled_linear import ScaledLinear
from ._staged import StagedNet


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


class ConvNeXtStage(nn.Module):
    """Layer norm and a 2 x 2 downsampling (not in the first stage), then blocks."""

    def __init__(self, in_dim: int, dim: int, blocks: list[ConvNeXtBlock], device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.grad_checkpointing = False
        self.downsample = nn.Identity()
        if in_dim is not None:
            self.downsample = nn.Sequential(
                LayerNorm2d(in_dim, **dd), nn.Conv2d(in_dim, dim, 2, stride=2, **dd)
            )
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


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
        make_stage: Callable[[int, int | None, int, list[float]], ConvNeXtStage],
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
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        if not len(depths) == len(dims) == 4:
            raise InputError(f"depths and dims need 4 entries each, got {depths}, {dims}")
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        widths = [int(dim * width_factor) for dim in dims]
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, widths[0], 4, stride=4, **dd), LayerNorm2d(widths[0], **dd)
        )
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        stages = []
        self.feature_info = []
        for i, dim in enumerate(widths):
            stages.append(make_stage(i, widths[i - 1] if i else None, dim, rates[i]))
            self.feature_info.append(
                {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            )
        self.stages = nn.Sequential(*stages)
        self.num_features = widths[-1]
        self.head = NormMlpClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd
        )
        self.head_hidden_size = self.head.num_features
        self.init_weights(head_init_scale)
