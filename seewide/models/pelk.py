"""PeLK: kernels of 51 x 51 and 101 x 101 with as few weights as 13 x 13.

Paper: "PeLK: Parameter-efficient Large Kernel ConvNets with Peripheral Convolution" (arXiv
2403.07589). No code and no weights were published. Where the paper leaves something open, this is
what was chosen; everything except the second half of the third point can be changed by arguments:

* Width. Table 4's parameters and multiply-adds are those of a network 1.3 times as wide with 40% of
  its weights removed, as in SLaK. So `pelk_t` has width factor 1.3 and dense tensors, from which
  sparse training removes weights; `pelk_t_dense` is the network of width 1.0 without sparsity.
* Channels. The peripheral convolution is applied to the first 3/8 of the channels, rounded down to
  a multiple of 4 (`partial`, `partial_multiple`).
* The small 5 x 5 kernel (`small_kernel`) and the batch norms act on those channels only.
* One positional embedding per stage, with as many channels as the convolution, added to pixels but
  not to padding (`pos_mode`, see `seewide.ops.peripheral_conv2d`).
* PeLK-101 and PeLK-151 have a fine centre of 7, as the text says of the former (`center`).

Legend: N batch, C channels, K kernel size.
"""

from collections.abc import Sequence
from functools import partial

import torch
from timm.layers import trunc_normal_
from timm.models import checkpoint, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..errors import InputError
from ..layers.peripheral import PartialMixer, PeripheralReparamBlock
from ..ops.peripheral import sharing_grid
from ._convnext import ConvNeXtBlock, ConvNeXtFrame, convnext_downsample
from ._hub import build, imagenet_cfg
from ._staged import Stage, StageShape

__all__ = ["PeLK"]

POS_MODES = ("valid", "constant", "none")


class PeLKBlock(ConvNeXtBlock):
    """ConvNeXt's block with a mixer that takes the stage's positional embedding."""

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        return self.add_channel_mixing(x, self.mixer(x, pos_embed))


class PeLKStage(Stage):
    """A stage whose blocks share a positional embedding (channels, K, K), or have none."""

    def __init__(self, downsample: nn.Module, blocks: list[PeLKBlock], embedding: Tensor | None):
        super().__init__(downsample, blocks)
        self.pos_embed = None if embedding is None else nn.Parameter(embedding)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Truncated normal embedding of standard deviation 0.02."""
        if self.pos_embed is not None:
            trunc_normal_(self.pos_embed, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        pos_embed = self.pos_embed
        if pos_embed is not None and not (torch.is_grad_enabled() or torch.jit.is_tracing()):
            # torch's module tracker (FlopCounterMode) fails on arguments that require gradients.
            pos_embed = pos_embed.detach()
        for block in self.blocks:
            if self.grad_checkpointing and not torch.jit.is_scripting():
                x = checkpoint(block, x, pos_embed)
            else:
                x = block(x, pos_embed)
        return x


class PeLK(ConvNeXtFrame):
    """PeLK.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none.
        depths: blocks per stage.
        dims: channels per stage, before `width_factor`.
        width_factor: factor on all channels, rounded down.
        width_multiple: round widths down to a multiple of this; 1 gives SLaK's widths, which are
            odd in places (249).
        kernel_sizes: K per stage.
        center: number of cells of 1 in the middle of the sharing grid, at most K.
        base: growth of the outer cells; 1 for dense kernels, the paper's baseline.
        grids: the sharing grid of each stage, instead of `kernel_sizes`, `center` and `base`.
        partial: fraction of the channels that are convolved; 1 for all.
        partial_multiple: round the number of convolved channels down to a multiple of this. With 4,
            3/8 of 96 and 128 is exact, and the channels of a pixel are aligned for vector loads on
            GPUs; 1 rounds down to an integer. On a CPU, 44 to 48 channels take the same time within
            10%.
        small_kernel: size of the parallel dense kernel, 0 for none (Table 10).
        pos_mode: where the positional embedding is added, "valid" or "constant"; "none" for no
            embedding.
        output_stride: largest stride of the stages, 8, 16 or 32; below 32 the last stages are
            dilated instead of downsampled, for dense prediction.
        ls_init_value: initial layer scale.
        head_init_scale: factor on the classifier's initial weights.
        drop_rate: dropout before the classifier.
        drop_path_rate: that of the last block; it increases linearly from 0.

    Raises:
        InputError: not four entries per stage, or an argument out of its range.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: tuple[int, ...] = (3, 3, 9, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768),
        width_factor: float = 1.3,
        width_multiple: int = 1,
        kernel_sizes: tuple[int, ...] = (51, 49, 47, 13),
        center: int = 5,
        base: int = 2,
        grids: Sequence[Sequence[int]] | None = None,
        partial: float = 3 / 8,
        partial_multiple: int = 4,
        small_kernel: int = 5,
        pos_mode: str = "valid",
        output_stride: int = 32,
        ls_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        if grids is None:
            grids = [sharing_grid(size, min(center, size), base) for size in kernel_sizes]
        if len(grids) != 4:
            raise InputError(f"kernel_sizes or grids needs 4 entries, got {len(grids)}")
        if not 0 < partial <= 1:
            raise InputError(f"partial must be above 0 and at most 1, got {partial=}")
        if partial_multiple < 1:
            raise InputError(f"partial_multiple must be at least 1, got {partial_multiple}")
        if pos_mode not in POS_MODES:
            raise InputError(f"pos_mode must be {', '.join(POS_MODES)}, got {pos_mode!r}")
        embeds = pos_mode != "none"

        def make_stage(
            i: int, in_dim: int | None, dim: int, rates: list[float], shape: StageShape
        ) -> PeLKStage:
            channels, grid = partial_channels(dim, partial, partial_multiple), list(grids[i])
            mode = pos_mode if embeds else "valid"

            def mixer() -> nn.Module:
                conv = PeripheralReparamBlock(
                    channels, grid, min(small_kernel, sum(grid)), mode, shape.dilation, **dd
                )
                return conv if channels == dim else PartialMixer(conv, channels)

            blocks = [PeLKBlock(mixer(), dim, rate, ls_init_value, **dd) for rate in rates]
            embedding = torch.empty(channels, sum(grid), sum(grid), **dd) if embeds else None
            return PeLKStage(convnext_downsample(in_dim, dim, shape, **dd), blocks, embedding)

        super().__init__(
            make_stage,
            in_chans,
            num_classes,
            global_pool,
            depths,
            dims,
            width_factor,
            width_multiple,
            output_stride,
            head_init_scale,
            drop_rate,
            drop_path_rate,
            **dd,
        )


def partial_channels(dim: int, partial: float, multiple: int = 4) -> int:
    """Number of convolved channels: the fraction of `dim`, rounded down to a multiple."""
    if partial == 1:
        return dim
    return max(int(dim * partial) // multiple * multiple, min(multiple, dim))


AUTHORS_FORMS = ()  # the authors published no files


def _cfg(**kwargs) -> dict:
    return imagenet_cfg(
        license="apache-2.0",
        paper_ids="arXiv:2403.07589",
        paper_name="PeLK",
        **kwargs,
    )


default_cfgs = generate_default_cfgs(
    {
        f"{name}.untrained": _cfg()
        for name in (
            *("pelk_t", "pelk_s", "pelk_b"),
            *("pelk_t_dense", "pelk_s_dense", "pelk_b_dense"),
            *("pelk101_t", "pelk101_s", "pelk101_b"),
            "pelk151_t",
        )
    }
)

SMALL = {"depths": (3, 3, 27, 3)}
BASE = {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)}
K101 = {"kernel_sizes": (101, 69, 67, 13), "center": 7}
K151 = {"kernel_sizes": (151, 89, 87, 13), "center": 7}
DENSE = {"width_factor": 1.0}


_create = partial(build, PeLK)


@register_model
def pelk_t(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-T. In the paper 29 M parameters, with 40% of the weights removed."""
    return _create("pelk_t", pretrained, **kwargs)


@register_model
def pelk_s(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-S. In the paper 50 M parameters, with 40% of the weights removed."""
    return _create("pelk_s", pretrained, **{**SMALL, **kwargs})


@register_model
def pelk_b(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-B. In the paper 89 M parameters, with 40% of the weights removed."""
    return _create("pelk_b", pretrained, **{**BASE, **kwargs})


@register_model
def pelk_t_dense(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-T of width 1.0, for training without sparsity."""
    return _create("pelk_t_dense", pretrained, **{**DENSE, **kwargs})


@register_model
def pelk_s_dense(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-S of width 1.0, for training without sparsity."""
    return _create("pelk_s_dense", pretrained, **{**SMALL, **DENSE, **kwargs})


@register_model
def pelk_b_dense(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-B of width 1.0, for training without sparsity."""
    return _create("pelk_b_dense", pretrained, **{**BASE, **DENSE, **kwargs})


@register_model
def pelk101_t(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-T with kernels up to 101 x 101."""
    return _create("pelk101_t", pretrained, **{**K101, **kwargs})


@register_model
def pelk101_s(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-S with kernels up to 101 x 101."""
    return _create("pelk101_s", pretrained, **{**SMALL, **K101, **kwargs})


@register_model
def pelk101_b(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-B with kernels up to 101 x 101. In the paper 90 M parameters."""
    return _create("pelk101_b", pretrained, **{**BASE, **K101, **kwargs})


@register_model
def pelk151_t(pretrained: bool = False, **kwargs) -> PeLK:
    """PeLK-T with kernels up to 151 x 151, of the paper's ablations."""
    return _create("pelk151_t", pretrained, **{**K151, **kwargs})
