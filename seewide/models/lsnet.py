"""LSNet: See Large, Focus Small.

Paper: arXiv 2503.23135. Weights: https://huggingface.co/jameslahm/lsnet. Written from the paper
and from facts about the authors' code, which decides where the two differ (docs/discrepancies):
blocks alternate between a depthwise convolution with squeeze-and-excitation and LS convolution
(attention in the last stage), whereas in the paper every block has all of these.

The network has six stages here, of strides 2 to 64: the authors' stem has three convolutions of
stride 2, and the first two are stages with one activation each, so that features at strides 2 and 4
are available. Legend: N batch, C channels, H x W map.
"""

from functools import partial
from itertools import pairwise

import torch
from timm.layers import SEModule, calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from ..checkpoints import invert, rename
from ..errors import InputError
from ..layers import (
    BatchNormHead,
    BiasedAttention,
    ConvNorm,
    DistilledHead,
    RepDepthwise,
    distance_index,
    resize_biases,
)
from ..layers.token_mixers import CascadedGroupAttention, Residual, token_mixer
from ._hub import build, imagenet_cfg
from ._staged import Stage, StagedNet, StageShape, check_four_entries, stage_shapes

__all__ = ["LSNet"]

STRIDE = 64


class FeedForward(nn.Module):
    """Pointwise convolution, ReLU, pointwise convolution; each with batch norm.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, dim: int, hidden: int, device=None, dtype=None):
        super().__init__()
        self.expand = ConvNorm(dim, hidden, device=device, dtype=dtype)
        self.act = nn.ReLU()
        self.project = ConvNorm(hidden, dim, device=device, dtype=dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """A zero weight of the last norm: a residual block starts as the identity."""
        nn.init.zeros_(self.project.norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        return self.project(self.act(self.expand(x)))


class LSNetBlock(nn.Module):
    """Token mixer, depthwise convolution, squeeze-and-excitation, feed-forward; each of the
    first three may be an identity. Section 3.3, Figure 4.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, mixer: nn.Module, dw: nn.Module, se: nn.Module, ffn: nn.Module):
        super().__init__()
        self.mixer = mixer
        self.dw = dw
        self.se = se
        self.ffn = ffn

    def forward(self, x: Tensor) -> Tensor:
        return self.ffn(self.se(self.dw(self.mixer(x))))


def _downsample(in_dim: int, dim: int, shape: StageShape, **dd) -> nn.Module:
    """Depthwise 3x3 convolution of stride 2, then a pointwise one; each with batch norm."""
    d = shape.downsample_dilation
    return nn.Sequential(
        ConvNorm(in_dim, in_dim, 3, stride=shape.stride, groups=in_dim, dilation=d, **dd),
        ConvNorm(in_dim, dim, **dd),
    )


class LSNet(StagedNet):
    """LSNet.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none (and then no classifier).
        img_size: input size, one number or (height, width), for which the attention biases are
            stored. Other sizes are accepted as well; the biases are then resized at each call.
        depths: blocks of the four stages of strides 8 to 64.
        dims: channels of these stages; the first is divisible by 4, all by 8.
        num_heads: heads of the attention in the last stage.
        key_dim: channels of the queries and keys of a head.
        mlp_ratio: hidden channels of the feed-forward network over C.
        mixer: token mixer of the first three stages: "ls", or for comparison "static" (LS
            convolution without SKA: a static K_S x K_S kernel on LKP's output), "depthwise"
            (K_L x K_L), "rep_mixer", "involution" (K_L x K_L), "self_attention",
            "cascaded_group_attention", "none".
        large_kernel: K_L, size of the perception kernel; 0 for LS convolution without LKP, whose
            aggregation weights are predicted from each pixel alone.
        small_kernel: K_S, size of the aggregation kernel, odd.
        group_width: channels that share aggregation weights; the paper has C / 8 groups.
        depthwise: whether blocks have the extra depthwise convolution.
        squeeze_excite: whether blocks have squeeze-and-excitation.
        every_block: whether every block has mixer, depthwise convolution and
            squeeze-and-excitation, as the paper says, instead of alternating.
        distilled: whether there are two classifiers, whose outputs are averaged.
        output_stride: largest stride of the stages, 8, 16, 32 or 64; below 64 the last stages are
            dilated instead of downsampled, for dense prediction.
        drop_rate: dropout before the classifier.
        drop_path_rate: that of the last block; it increases linearly from 0.

    Raises:
        InputError: not four entries per stage, an unknown mixer, or an argument out of its range.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        img_size: int | tuple[int, int] = 224,
        depths: tuple[int, ...] = (0, 2, 8, 10),
        dims: tuple[int, ...] = (64, 128, 256, 384),
        num_heads: int = 4,
        key_dim: int = 16,
        mlp_ratio: float = 2.0,
        mixer: str = "ls",
        large_kernel: int = 7,
        small_kernel: int = 3,
        group_width: int = 8,
        depthwise: bool = True,
        squeeze_excite: bool = True,
        every_block: bool = False,
        distilled: bool = False,
        output_stride: int = STRIDE,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        check_four_entries(depths=depths, dims=dims)
        shapes = stage_shapes(2, 6, output_stride)
        sizes = (large_kernel, small_kernel, group_width)

        def mixer_of(stage: int, drop_path: float) -> nn.Module:
            dim, dilation = dims[stage], shapes[stage + 2].dilation
            attention = {"dilation": dilation, "resolution": stage_map(img_size, stage), **dd}
            if stage == 3:
                layer = BiasedAttention(dim, num_heads, key_dim, **attention)
                return Residual(layer, drop_path)
            return token_mixer(mixer, dim, sizes, num_heads, key_dim, attention)

        def block(stage: int, index: int, drop_path: float) -> nn.Module:
            dim, dilation = dims[stage], shapes[stage + 2].dilation
            mixes, local = every_block or index % 2 == 1, every_block or index % 2 == 0
            dw, se = nn.Identity(), nn.Identity()
            if local and depthwise:
                dw = RepDepthwise(dim, dilation, **dd)
            if local and squeeze_excite:
                se = SEModule(dim, rd_channels=dim // 4, **dd)
            return LSNetBlock(
                mixer_of(stage, drop_path) if mixes else nn.Identity(),
                dw,
                se,
                Residual(FeedForward(dim, int(dim * mlp_ratio), **dd), drop_path),
            )

        stem_dims = (in_chans, dims[0] // 4, dims[0] // 2, dims[0])
        downsamples = [
            ConvNorm(before, after, 3, stride=2, **dd) for before, after in pairwise(stem_dims)
        ] + [
            _downsample(before, after, shape, **dd)
            for (before, after), shape in zip(pairwise(dims), shapes[3:], strict=True)
        ]
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        blocks = [[nn.ReLU()], [nn.ReLU()]] + [
            [block(stage, i, rates[stage][i]) for i in range(depth)] or [nn.Identity()]
            for stage, depth in enumerate(depths)
        ]
        head = DistilledHead if distilled else BatchNormHead
        super().__init__(
            in_chans,
            num_classes,
            drop_rate,
            stem=nn.Identity(),
            stages=[*map(Stage, downsamples, blocks)],
            dims=(*stem_dims[1:3], *dims),
            shapes=shapes,
            head=head(dims[-1], num_classes, global_pool, drop_rate, **dd),
        )

    @torch.jit.ignore
    def no_weight_decay(self) -> set[str]:
        """The attention biases."""
        return {name for name, _ in self.named_parameters() if name.endswith("attention_biases")}

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module | tuple[nn.Module, nn.Module]:
        """The classifier; both of a distilled network."""
        if isinstance(self.head, DistilledHead):
            return self.head.fc, self.head.fc_dist
        return self.head.fc

    @torch.jit.ignore
    def set_distilled_training(self, enable: bool = True) -> None:
        """In training mode, return the outputs of both classifiers; timm's hook."""
        if not isinstance(self.head, DistilledHead):
            raise InputError("this LSNet has one classifier; build it with distilled=True")
        self.head.distilled_training = enable

    @torch.jit.ignore
    def set_input_size(self, img_size: int | tuple[int, int]) -> None:
        """Store the attention biases for inputs of this size, one number or (height, width)."""
        for stage, module in enumerate(self.stages[2:]):
            for layer in module.modules():
                if isinstance(layer, (BiasedAttention, CascadedGroupAttention)):
                    layer.set_resolution(stage_map(img_size, stage))


def stage_map(img_size: int | tuple[int, int], stage: int) -> tuple[int, int]:
    """Height and width of the map of stage 0 to 3, of stride 8 to 64, without dilation."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if min(height, width) < 1:
        raise InputError(f"img_size must be positive, got {img_size}")
    stride = 8 * 2**stage
    return -(-height // stride), -(-width // stride)


# Rules that rename the authors' keys to ours, in three steps: the position of a layer in the
# network, the layer, and its parts.
_BLOCK = r"^(stages\.\d+\.blocks\.\d+)\."
PLACES = [
    *((rf"^patch_embed\.{2 * i}\.", f"stages.{i}.downsample.") for i in range(3)),
    (r"^blocks1\.(\d+)\.", r"stages.2.blocks.\1."),
    *((rf"^blocks{s}\.([01])\.", rf"stages.{s + 1}.downsample.\1.") for s in (2, 3, 4)),
    # In the authors' layout, the two downsampling convolutions precede the blocks.
    *((rf"^blocks{s}\.{i + 2}\.", f"stages.{s + 1}.blocks.{i}.")
      for s in (2, 3, 4) for i in range(32)),
    (r"^head\.l\.", "head.fc.linear."),
    (r"^head_dist\.l\.", "head.fc_dist.linear."),
    (r"^head\.", "head.fc."),
    (r"^head_dist\.", "head.fc_dist."),
]  # fmt: skip
LAYERS = [
    (_BLOCK + r"mixer\.conv\.", r"\1.dw.square."),
    (_BLOCK + r"mixer\.conv1\.", r"\1.dw.point."),
    (_BLOCK + r"mixer\.lkp\.cv1\.", r"\1.mixer.lkp.reduce."),
    (_BLOCK + r"mixer\.lkp\.cv2\.", r"\1.mixer.lkp.dw."),
    (_BLOCK + r"mixer\.lkp\.cv3\.", r"\1.mixer.lkp.mix."),
    (_BLOCK + r"mixer\.lkp\.cv4\.", r"\1.mixer.to_weight."),
    (_BLOCK + r"mixer\.lkp\.norm\.", r"\1.mixer.weight_norm."),
    (_BLOCK + r"mixer\.m\.proj\.1\.", r"\1.mixer.layer.proj."),
    (_BLOCK + r"mixer\.m\.", r"\1.mixer.layer."),
    (_BLOCK + r"ffn\.m\.pw1\.", r"\1.ffn.layer.expand."),
    (_BLOCK + r"ffn\.m\.pw2\.", r"\1.ffn.layer.project."),
]
PARTS = [(r"\.c\.", ".conv."), (r"\.bn\.", ".norm.")]
AUTHORS_FORMS = ("training",)  # files that the authors' code reads: of unfused networks


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert the authors' state dict to ours; attention biases are resized to the model's size."""
    if "patch_embed.0.c.weight" in state_dict:
        # The authors' index buffers follow from the map's size.
        state_dict = {k: v for k, v in state_dict.items() if "attention_bias_idxs" not in k}
        for rules in (PLACES, LAYERS, PARTS):
            state_dict = rename(state_dict, rules)
    return {key: _at_size(key, value, model) for key, value in state_dict.items()}


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of an unfused network to the authors' keys and index buffers.

    Raises:
        InputError: attention biases of a map that is not square, which their layout does not have.
    """
    for rules in (PARTS, LAYERS, PLACES):
        state_dict = rename(state_dict, invert(rules))
    for key, table in list(state_dict.items()):
        if key.endswith(".attention_biases"):
            side = _side(table)
            if side is None:
                raise InputError(
                    f"{key} has {table.shape[1]} distances, not those of a square map, and the "
                    "authors' layout is for square maps only"
                )
            index = distance_index(side, side, table.device)
            state_dict[key.replace("biases", "bias_idxs")] = index
    return state_dict


def _side(table: Tensor) -> int | None:
    """Side of the square map of a table (heads, side * side) of biases; None for other maps."""
    side = round(table.shape[1] ** 0.5)
    return side if side * side == table.shape[1] else None


def _at_size(key: str, value: Tensor, model: nn.Module) -> Tensor:
    """Resize attention biases that were stored for a square map of another size."""
    path, _, name = key.rpartition(".")
    if name != "attention_biases":
        return value
    try:
        new = model.get_submodule(path).resolution
    except AttributeError:  # the model has no such key, which the caller reports
        return value
    side = _side(value)
    if side is None or value.shape[1] == new[0] * new[1]:
        return value
    return resize_biases(value, (side, side), new)


def _cfg(file: str, classifier: str | tuple[str, ...] = "head.fc.linear") -> dict:
    return imagenet_cfg(
        hf_hub_id="jameslahm/lsnet",
        hf_hub_filename=file,
        pool_size=(4, 4),
        crop_pct=0.875,  # as in the authors' evaluation; their configuration says 0.9
        first_conv="stages.0.downsample.conv",
        classifier=classifier,
        license="mit",
        paper_ids="arXiv:2503.23135",
        paper_name="LSNet: See Large, Focus Small",
        origin_url="https://github.com/THU-MIG/lsnet",
    )


TWO_HEADS = ("head.fc.linear", "head.fc_dist.linear")

default_cfgs = generate_default_cfgs(
    {
        "lsnet_t.in1k": _cfg("lsnet_t.pth"),
        "lsnet_s.in1k": _cfg("lsnet_s.pth"),
        "lsnet_b.in1k": _cfg("lsnet_b.pth"),
        "lsnet_t_distill.in1k": _cfg("lsnet_t_distill.pth", TWO_HEADS),
        "lsnet_s_distill.in1k": _cfg("lsnet_s_distill.pth", TWO_HEADS),
        "lsnet_b_distill.in1k": _cfg("lsnet_b_distill.pth", TWO_HEADS),
    }
)

TINY = {"depths": (0, 2, 8, 10), "dims": (64, 128, 256, 384)}
SMALL = {"depths": (1, 2, 8, 10), "dims": (96, 192, 320, 448)}
BASE = {"depths": (4, 6, 8, 10), "dims": (128, 256, 384, 512)}


# Features of all six stages: segmentation encoders expect strides 2, 4, 8, ...
_create = partial(
    build,
    LSNet,
    pretrained_filter_fn=checkpoint_filter_fn,
    feature_cfg={"out_indices": (0, 1, 2, 3, 4, 5), "flatten_sequential": True},
)


@register_model
def lsnet_t(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-T (Tiny), 11.4 M parameters."""
    return _create("lsnet_t", pretrained, **{**TINY, **kwargs})


@register_model
def lsnet_s(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-S (Small), 16.1 M parameters."""
    return _create("lsnet_s", pretrained, **{**SMALL, **kwargs})


@register_model
def lsnet_b(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-B (Base), 23.2 M parameters."""
    return _create("lsnet_b", pretrained, **{**BASE, **kwargs})


@register_model
def lsnet_t_distill(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-T with a second classifier, trained with RegNetY-160 as the teacher."""
    return _create("lsnet_t_distill", pretrained, **{**TINY, "distilled": True, **kwargs})


@register_model
def lsnet_s_distill(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-S with a second classifier, trained with RegNetY-160 as the teacher."""
    return _create("lsnet_s_distill", pretrained, **{**SMALL, "distilled": True, **kwargs})


@register_model
def lsnet_b_distill(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-B with a second classifier, trained with RegNetY-160 as the teacher."""
    return _create("lsnet_b_distill", pretrained, **{**BASE, "distilled": True, **kwargs})
