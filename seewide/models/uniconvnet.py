"""UniConvNet: large receptive fields that stay Gaussian.

Paper: "UniConvNet: Expanding Effective Receptive Field while Maintaining Asymptotically Gaussian
Distribution for ConvNets of Any Scale" (arXiv 2508.09000).
Weights: https://huggingface.co/ai-modelwithcode/UniConvNet. Written from the paper and from facts
about the authors' code, which decides where the two differ (docs/discrepancies). The code's two
model files, A to P2 and N0 to XL, are one class here: they differ in the channels per deformable
group, 8 and 16.

A block has three residual branches, each with a layer scale: a Receptive Field Aggregator; layer
norm and DCNv3; layer norm and an MLP. Legend: N batch, C channels, H x W map.
"""

import copy
from functools import partial

import torch
from timm.layers import (
    DropPath,
    LayerNorm,
    LayerNorm2d,
    Mlp,
    NormMlpClassifierHead,
    calculate_drop_path_rates,
)
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from ..checkpoints import invert, rename
from ..errors import unknown
from ..layers import DCNv3, DepthwiseConv2d, DepthwiseConv2dLast, ReceptiveFieldAggregator
from ..layers.rfa import RENAMED, scale_outputs
from ._hub import build, imagenet_cfg
from ._staged import (
    Stage,
    StagedNet,
    StageShape,
    check_four_entries,
    conv_stem,
    downsample_conv,
    init_truncated_normal,
    stage_shapes,
)

__all__ = ["UniConvNet"]

# The first and the second branch of a block, and what Table 9 compares them with.
AGGREGATORS = ("rfa", "depthwise", "none")
LOCAL_MIXERS = ("dcnv3", "depthwise", "none")


def _aggregator(
    name: str, dim: int, kernel_sizes: tuple[int, ...], dilation: int, **dd
) -> nn.Module | None:
    if name == "rfa":
        return ReceptiveFieldAggregator(dim, kernel_sizes, dilation, **dd)
    if name == "depthwise":
        return nn.Sequential(LayerNorm2d(dim, **dd), DepthwiseConv2d(dim, 7, dilation, **dd))
    if name == "none":
        return None
    raise unknown("aggregator", name, AGGREGATORS)


def _local_mixer(name: str, dim: int, group_channels: int, dilation: int, **dd) -> nn.Module | None:
    if name == "dcnv3":
        return DCNv3(dim, group_channels, dilation=dilation, **dd)
    if name == "depthwise":
        return DepthwiseConv2dLast(dim, 3, dilation, **dd)
    if name == "none":
        return None
    raise unknown("local mixer", name, LOCAL_MIXERS)


class UniConvNetBlock(nn.Module):
    """The block as it is trained. Section 3 and Figure 3 of the paper.

    Args:
        dim: C.
        group_channels: channels per deformable group.
        kernel_sizes: of the aggregator's layers.
        aggregator: the first branch: "rfa", "depthwise" (layer norm and a 7x7 convolution) or
            "none" (Table 9).
        local_mixer: the second branch: "dcnv3", "depthwise" (3x3) or "none" (Table 9).
        dilation: of all depthwise and deformable convolutions.
        drop_path: probability of dropping a residual branch.
        ls_init_value: initial layer scales.
        mlp_ratio: width of the hidden layer over C.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: an unknown aggregator or local mixer, or dimensions that do not fit.
    """

    def __init__(
        self,
        dim: int,
        group_channels: int,
        kernel_sizes: tuple[int, ...] = (7, 9, 11),
        aggregator: str = "rfa",
        local_mixer: str = "dcnv3",
        dilation: int = 1,
        drop_path: float = 0.0,
        ls_init_value: float = 1e-6,
        mlp_ratio: float = 4.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.ls_init_value = ls_init_value
        self.rfa = _aggregator(aggregator, dim, kernel_sizes, dilation, **dd)
        self.norm1 = None if local_mixer == "none" else LayerNorm(dim, **dd)
        self.dcn = _local_mixer(local_mixer, dim, group_channels, dilation, **dd)
        self.norm2 = LayerNorm(dim, **dd)
        self.mlp = Mlp(dim, int(mlp_ratio * dim), **dd)

        def layer_scale() -> nn.Parameter:
            return nn.Parameter(torch.empty(dim, **dd))

        self.gamma_rfa = None if self.rfa is None else layer_scale()
        self.gamma_dcn = None if self.dcn is None else layer_scale()
        self.gamma_mlp = layer_scale()
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """The initial layer scales."""
        for gamma in (self.gamma_rfa, self.gamma_dcn, self.gamma_mlp):
            if gamma is not None:
                nn.init.constant_(gamma, self.ls_init_value)

    def forward(self, x: Tensor) -> Tensor:
        if self.rfa is not None:
            x = x + self.drop_path(self.rfa(x) * self.gamma_rfa[:, None, None])
        x = x.permute(0, 2, 3, 1)
        if self.dcn is not None:
            x = x + self.drop_path(self.dcn(self.norm1(x)) * self.gamma_dcn)
        x = x + self.drop_path(self.mlp(self.norm2(x)) * self.gamma_mlp)
        return x.permute(0, 3, 1, 2)

    def fuse(self) -> "FusedUniConvNetBlock":
        """The block without layer scales, which are fused into the last weights of each branch."""
        return FusedUniConvNetBlock(self)


class FusedUniConvNetBlock(nn.Module):
    """The block without layer scales and drop path.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, block: UniConvNetBlock):
        super().__init__()
        self.rfa = copy.deepcopy(block.rfa)
        self.norm1 = copy.deepcopy(block.norm1)
        self.dcn = copy.deepcopy(block.dcn)
        self.norm2 = copy.deepcopy(block.norm2)
        self.mlp = copy.deepcopy(block.mlp)
        if isinstance(self.rfa, ReceptiveFieldAggregator):
            self.rfa.scale_outputs(block.gamma_rfa)
        elif self.rfa is not None:
            scale_outputs(self.rfa[-1], block.gamma_rfa)
        if self.dcn is not None:
            last = self.dcn.output_proj if isinstance(self.dcn, DCNv3) else self.dcn
            scale_outputs(last, block.gamma_dcn)
        scale_outputs(self.mlp.fc2, block.gamma_mlp)

    def forward(self, x: Tensor) -> Tensor:
        if self.rfa is not None:
            x = x + self.rfa(x)
        x = x.permute(0, 2, 3, 1)
        if self.dcn is not None:
            x = x + self.dcn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x.permute(0, 3, 1, 2)


def _downsample(in_dim: int, dim: int, shape: StageShape, **dd) -> nn.Module:
    return nn.Sequential(LayerNorm2d(in_dim, **dd), downsample_conv(in_dim, dim, shape, **dd))


class UniConvNet(StagedNet):
    """UniConvNet.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none.
        depths: blocks per stage.
        dims: channels per stage, multiples of `group_channels`; the first must be even.
        group_channels: channels per deformable group: 8 in A to P2, 16 in N0 to XL.
        kernel_sizes: of the aggregator's layers, one layer each (Table 7: other triples, and four
            layers).
        aggregator: first branch of a block: "rfa", "depthwise" (7x7) or "none" (Table 9).
        local_mixer: second branch of a block: "dcnv3", "depthwise" (3x3) or "none" (Table 9).
        output_stride: largest stride of the stages, 8, 16 or 32; below 32 the last stages are
            dilated instead of downsampled, for dense prediction.
        ls_init_value: initial layer scales.
        head_init_scale: factor on the classifier's initial weights.
        drop_rate: dropout before the classifier.
        drop_path_rate: that of the last block; it increases linearly from 0.

    Raises:
        InputError: not four entries per stage, channels that do not divide into groups, an even
            kernel, an unknown name, or another output stride.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: tuple[int, ...] = (3, 3, 15, 3),
        dims: tuple[int, ...] = (64, 128, 256, 512),
        group_channels: int = 16,
        kernel_sizes: tuple[int, ...] = (7, 9, 11),
        aggregator: str = "rfa",
        local_mixer: str = "dcnv3",
        output_stride: int = 32,
        ls_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        check_four_entries(depths=depths, dims=dims)
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        shapes = stage_shapes(4, 4, output_stride)
        mixers = (kernel_sizes, aggregator, local_mixer)

        def blocks(i: int) -> list[nn.Module]:
            dilation = shapes[i].dilation
            return [
                UniConvNetBlock(
                    dims[i], group_channels, *mixers, dilation, rate, ls_init_value, **dd
                )
                for rate in rates[i]
            ]

        def downsample(i: int) -> nn.Module:
            return _downsample(dims[i - 1], dims[i], shapes[i], **dd) if i else nn.Identity()

        super().__init__(
            in_chans,
            num_classes,
            drop_rate,
            stem=conv_stem(in_chans, dims[0], **dd),
            stages=[Stage(downsample(i), blocks(i)) for i in range(4)],
            dims=dims,
            shapes=shapes,
            head=NormMlpClassifierHead(
                dims[-1], num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd
            ),
        )
        self._init_weights(head_init_scale)

    def _init_weights(self, head_init_scale: float) -> None:
        """As ConvNeXt, and the deformable layers' own initialization."""
        init_truncated_normal(self, head_init_scale)
        for module in self.modules():
            if isinstance(module, DCNv3):
                module.reset_parameters()


# Rules that rename the authors' keys to ours; the first that matches a key applies. The layers of
# their aggregator, `attn`, are numbered from 1; norm1 precedes the split, norm2 and up the layers.
_BLOCK = r"^stages\.(\d+)\.(\d+)\."
_OURS = r"stages.\1.blocks.\2."
_MOST_LAYERS = 4
RULES = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (_BLOCK + r"attn\.norm1\.", _OURS + "rfa.norm."),
    *(
        (_BLOCK + rf"attn\.{theirs}\.", _OURS + f"rfa.layers.{i - 1}.{ours}.")
        for i in range(1, _MOST_LAYERS + 1)
        for theirs, ours in (
            (f"norm{i}", "norm"),
            (f"a{i}", "context"),
            (f"v{i}", "value"),
            (f"v{i}1", "product_proj"),
            (f"v{i}2", "part_conv.0"),
            (f"conv3_{i}", "part_conv.1"),
            (f"proj{i}", "context_proj"),
        )
    ),
    (_BLOCK + r"norm(\d)\.0\.", _OURS + r"norm\3."),
    (_BLOCK + r"layer_scale$", _OURS + "gamma_rfa"),
    (_BLOCK + r"gamma1$", _OURS + "gamma_dcn"),
    (_BLOCK + r"gamma2$", _OURS + "gamma_mlp"),
    (_BLOCK, _OURS),
    (r"^norm\.", "head.norm."),
    (r"^head\.", "head.fc."),
]
# Version 0.1 had other names in the aggregator.
EARLIER = [(rf"(\.rfa\.layers\.\d+)\.{old}\.", rf"\1.{new}.") for old, new in RENAMED.items()]
AUTHORS_FORMS = ("training",)  # files that the authors' code reads: of unfused networks


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert the authors' state dict, or that of an earlier version, to ours."""
    authors = "downsample_layers.0.0.weight" in state_dict
    return rename(state_dict, RULES if authors else EARLIER)


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of an unfused network to the authors' keys."""
    return rename(state_dict, invert(RULES))


def _cfg(file: str, **kwargs) -> dict:
    return imagenet_cfg(
        hf_hub_id="ai-modelwithcode/UniConvNet",
        hf_hub_filename=file,
        paper_ids="arXiv:2508.09000",
        paper_name="UniConvNet",
        origin_url="https://github.com/ai-paperwithcode/UniConvNet",
        **kwargs,
    )


default_cfgs = generate_default_cfgs(
    {
        "uniconvnet_a.in1k": _cfg("uniconvnet_a_1k_224.pth"),
        "uniconvnet_p0.in1k": _cfg("uniconvnet_p0_1k_224_ema.pth"),
        "uniconvnet_p1.in1k": _cfg("uniconvnet_p1_1k_224_ema.pth"),
        "uniconvnet_p2.in1k": _cfg("uniconvnet_p2_1k_224_ema.pth"),
        "uniconvnet_n0.in1k": _cfg("uniconvnet_n0_1k_224_ema.pth"),
        "uniconvnet_n1.in1k": _cfg("uniconvnet_n1_1k_224.pth"),
        "uniconvnet_n2.in1k": _cfg("uniconvnet_n2_1k_224_ema.pth"),
        "uniconvnet_n3.in1k": _cfg("uniconvnet_n3_1k_224_ema.pth"),
        "uniconvnet_t.in1k": _cfg("uniconvnet_t_1k_224_ema.pth"),
        "uniconvnet_t.in1k_384": _cfg("uniconvnet_t_1k_384.pth", image_size=384),
        "uniconvnet_s.in1k": _cfg("uniconvnet_s_1k_224_ema.pth"),
        "uniconvnet_s.in1k_384": _cfg("uniconvnet_s_1k_384.pth", image_size=384),
        "uniconvnet_b.in1k": _cfg("uniconvnet_b_1k_224_ema.pth"),
        "uniconvnet_b.in1k_384": _cfg("uniconvnet_b_1k_384.pth", image_size=384),
        "uniconvnet_l.in22k_ft_in1k_384": _cfg("uniconvnet_l_22k_1k_384.pth", image_size=384),
        "uniconvnet_l.in22k": _cfg("uniconvnet_l_22k_224.pth", num_classes=21841),
        "uniconvnet_xl.in22k_ft_in1k_384": _cfg("uniconvnet_xl_22k_1k_384.pth", image_size=384),
        "uniconvnet_xl.in22k": _cfg("uniconvnet_xl_22k_224.pth", num_classes=21841),
    }
)


_create = partial(build, UniConvNet, pretrained_filter_fn=checkpoint_filter_fn)


def _sizes(width: int, depths: tuple[int, ...], group_channels: int, kwargs: dict) -> dict:
    return {
        "depths": depths,
        "dims": (width, 2 * width, 4 * width, 8 * width),
        "group_channels": group_channels,
        **kwargs,
    }


@register_model
def uniconvnet_a(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-A, 3.4 M parameters."""
    return _create("uniconvnet_a", pretrained, **_sizes(24, (2, 3, 9, 2), 8, kwargs))


@register_model
def uniconvnet_p0(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-P0, 5.2 M parameters."""
    return _create("uniconvnet_p0", pretrained, **_sizes(32, (2, 2, 7, 2), 8, kwargs))


@register_model
def uniconvnet_p1(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-P1, 6.1 M parameters."""
    return _create("uniconvnet_p1", pretrained, **_sizes(32, (2, 3, 6, 3), 8, kwargs))


@register_model
def uniconvnet_p2(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-P2, 7.6 M parameters."""
    return _create("uniconvnet_p2", pretrained, **_sizes(32, (3, 3, 11, 3), 8, kwargs))


@register_model
def uniconvnet_n0(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-N0, 10.3 M parameters."""
    return _create("uniconvnet_n0", pretrained, **_sizes(48, (2, 2, 7, 2), 16, kwargs))


@register_model
def uniconvnet_n1(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-N1, 13.1 M parameters."""
    return _create("uniconvnet_n1", pretrained, **_sizes(48, (2, 2, 8, 3), 16, kwargs))


@register_model
def uniconvnet_n2(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-N2, 15.0 M parameters."""
    return _create("uniconvnet_n2", pretrained, **_sizes(48, (3, 3, 11, 3), 16, kwargs))


@register_model
def uniconvnet_n3(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-N3, 19.7 M parameters."""
    return _create("uniconvnet_n3", pretrained, **_sizes(48, (3, 3, 19, 3), 16, kwargs))


@register_model
def uniconvnet_t(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-T, 30.3 M parameters."""
    return _create("uniconvnet_t", pretrained, **_sizes(64, (3, 3, 15, 3), 16, kwargs))


@register_model
def uniconvnet_s(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-S, 50.0 M parameters."""
    return _create("uniconvnet_s", pretrained, **_sizes(80, (3, 3, 17, 3), 16, kwargs))


@register_model
def uniconvnet_b(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-B, 97.7 M parameters."""
    return _create("uniconvnet_b", pretrained, **_sizes(112, (4, 4, 13, 4), 16, kwargs))


@register_model
def uniconvnet_l(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-L, 202.0 M parameters."""
    return _create("uniconvnet_l", pretrained, **_sizes(160, (3, 3, 18, 3), 16, kwargs))


@register_model
def uniconvnet_xl(pretrained: bool = False, **kwargs) -> UniConvNet:
    """UniConvNet-XL, 226.7 M parameters."""
    return _create("uniconvnet_xl", pretrained, **_sizes(160, (3, 3, 22, 3), 16, kwargs))
