"""LSNet: See Large, Focus Small.

Paper: arXiv 2503.23135. Weights: https://huggingface.co/jameslahm/lsnet. Written from the paper
and from facts about the authors' code, which decides where the two differ (docs/discrepancies):
blocks alternate between a depthwise convolution with squeeze-and-excitation and LS convolution
(attention in the last stage), where the paper has all of these in every block.

Six stages here, of strides 2 to 64: what the authors call the stem is three convolutions of
stride 2, and the first two are stages of one activation each, so that features at strides 2 and 4
can be had. Legend: N batch, C channels, H x W map.
"""

from functools import partial
from itertools import pairwise

import torch
from timm.layers import DropPath, SEModule, calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from ..checkpoints import invert, rename
from ..errors import InputError
from ..layers import (
    BatchNormHead,
    BiasedAttention,
    ConvNorm,
    DistilledHead,
    LargeKernelPerception,
    LSConv,
    RepDepthwise,
    distance_index,
    resize_biases,
)
from ._hub import build, imagenet_cfg
from ._staged import Stage, StagedNet, four_each

__all__ = ["LSNet"]

STRIDE = 64


class Residual(nn.Module):
    """x + drop_path(layer(x))"""

    def __init__(self, layer: nn.Module, drop_path: float = 0.0):
        super().__init__()
        self.layer = layer
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.layer(x))


class FeedForward(nn.Module):
    """Pointwise convolution, ReLU, pointwise convolution; each with batch norm.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, dim: int, hidden: int, device=None, dtype=None):
        super().__init__()
        self.expand = ConvNorm(dim, hidden, device=device, dtype=dtype)
        self.act = nn.ReLU()
        self.project = ConvNorm(hidden, dim, device=device, dtype=dtype)
        nn.init.zeros_(self.project.norm.weight)  # starts as the identity

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


class LSNet(StagedNet):
    """LSNet.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none (and then no classifier).
        img_size: input size, one number or (height, width), for which the attention biases are
            stored. Any other size runs as well; the biases are then resized at each call.
        depths: blocks of the four stages of strides 8 to 64.
        dims: channels of these stages; the first is divisible by 4, all by 8.
        num_heads: heads of the attention in the last stage.
        key_dim: channels of the queries and keys of a head.
        mlp_ratio: hidden channels of the feed-forward over C.
        large_kernel: K_L, the kernel that perceives; 0 is the network without LKP, whose
            aggregation weights come from each pixel alone.
        small_kernel: K_S, the kernel that aggregates; 0 is the network without SKA, in which
            what LKP perceived is itself the output of the mixer.
        group_width: channels that share aggregation weights; the paper's groups are C / 8.
        depthwise: whether blocks have the extra depthwise convolution.
        squeeze_excite: whether blocks have squeeze-and-excitation.
        every_block: the paper's reading: all blocks have mixer, depthwise convolution and
            squeeze-and-excitation, instead of taking turns.
        distilled: two classifiers, whose outputs are averaged.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block, rising linearly from 0.
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
        large_kernel: int = 7,
        small_kernel: int = 3,
        group_width: int = 8,
        depthwise: bool = True,
        squeeze_excite: bool = True,
        every_block: bool = False,
        distilled: bool = False,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        four_each(depths=depths, dims=dims)
        resolution = last_map(img_size)

        def mixer(dim: int, last: bool, drop_path: float) -> nn.Module:
            if last:
                attention = BiasedAttention(dim, num_heads, key_dim, resolution, **dd)
                return Residual(attention, drop_path)
            if small_kernel == 0:
                perception = LargeKernelPerception(dim, large_kernel, **dd)
                return Residual(nn.Sequential(perception, ConvNorm(dim // 2, dim, **dd)))
            return LSConv(dim, large_kernel, small_kernel, group_width, **dd)

        def block(index: int, dim: int, last: bool, drop_path: float) -> nn.Module:
            mixes, local = every_block or index % 2 == 1, every_block or index % 2 == 0
            return LSNetBlock(
                mixer(dim, last, drop_path) if mixes else nn.Identity(),
                RepDepthwise(dim, **dd) if local and depthwise else nn.Identity(),
                SEModule(dim, rd_channels=dim // 4, **dd)
                if local and squeeze_excite
                else nn.Identity(),
                Residual(FeedForward(dim, int(dim * mlp_ratio), **dd), drop_path),
            )

        stem_dims = (in_chans, dims[0] // 4, dims[0] // 2, dims[0])
        downsamples = [
            ConvNorm(before, after, 3, stride=2, **dd) for before, after in pairwise(stem_dims)
        ] + [
            nn.Sequential(
                ConvNorm(before, before, 3, stride=2, groups=before, **dd),
                ConvNorm(before, after, **dd),
            )
            for before, after in pairwise(dims)
        ]
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        blocks = [[nn.ReLU()], [nn.ReLU()]] + [
            [block(i, dim, stage == 3, rates[stage][i]) for i in range(depth)] or [nn.Identity()]
            for stage, (depth, dim) in enumerate(zip(depths, dims, strict=True))
        ]
        head = DistilledHead if distilled else BatchNormHead
        super().__init__(
            in_chans,
            num_classes,
            drop_rate,
            stem=nn.Identity(),
            stages=[*map(Stage, downsamples, blocks)],
            dims=(*stem_dims[1:3], *dims),
            first_stride=2,
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
        for module in self.modules():
            if isinstance(module, BiasedAttention):
                module.set_resolution(last_map(img_size))


def last_map(img_size: int | tuple[int, int]) -> tuple[int, int]:
    """Height and width of the last stage's map."""
    height, width = (img_size, img_size) if isinstance(img_size, int) else img_size
    if min(height, width) < 1:
        raise InputError(f"img_size must be positive, got {img_size}")
    return -(-height // STRIDE), -(-width // STRIDE)


# Authors' keys -> ours, in three steps: where a layer is, what it is, and its parts.
_BLOCK = r"^(stages\.\d+\.blocks\.\d+)\."
PLACES = [
    *((rf"^patch_embed\.{2 * i}\.", f"stages.{i}.downsample.") for i in range(3)),
    (r"^blocks1\.(\d+)\.", r"stages.2.blocks.\1."),
    *((rf"^blocks{s}\.([01])\.", rf"stages.{s + 1}.downsample.\1.") for s in (2, 3, 4)),
    # Their blocks 2, 3, ... follow the two convolutions that downsample.
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
AUTHORS_FORMS = ("training",)  # of the files that their code reads


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Authors' state dict to ours; ours passes, with the attention biases at the model's size."""
    if "patch_embed.0.c.weight" in state_dict:
        # Their index buffers hold nothing but the distances between pixels.
        state_dict = {k: v for k, v in state_dict.items() if "attention_bias_idxs" not in k}
        for rules in (PLACES, LAYERS, PARTS):
            state_dict = rename(state_dict, rules)
    return {key: _at_size(key, value, model) for key, value in state_dict.items()}


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ours, training form, to the authors' keys, with their index buffers.

    Raises:
        InputError: attention biases of a map that is not square, for which they have no layout.
    """
    for rules in (PARTS, LAYERS, PLACES):
        state_dict = rename(state_dict, invert(rules))
    for key, table in list(state_dict.items()):
        if key.endswith(".attention_biases"):
            side = _side(table)
            if side is None:
                raise InputError(
                    f"{key} has {table.shape[1]} distances, which make no square map; the authors' "
                    "layout knows no other"
                )
            index = distance_index(side, side, table.device)
            state_dict[key.replace("biases", "bias_idxs")] = index
    return state_dict


def _side(table: Tensor) -> int | None:
    """Side of the square map that a table (heads, side * side) of biases is for."""
    side = round(table.shape[1] ** 0.5)
    return side if side * side == table.shape[1] else None


def _at_size(key: str, value: Tensor, model: nn.Module) -> Tensor:
    """Attention biases stored for a square map of another size, resized to the model's."""
    path, _, name = key.rpartition(".")
    if name != "attention_biases":
        return value
    try:
        new = model.get_submodule(path).resolution
    except AttributeError:  # a key that the model does not have; comparing keys comes later
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
        crop_pct=0.875,  # as evaluated; the authors' configuration says 0.9
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


# Features of all six stages: encoders for segmentation want strides that begin at 2 and double.
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
    """LSNet-T with a second classifier that learnt from RegNetY-160."""
    return _create("lsnet_t_distill", pretrained, **{**TINY, "distilled": True, **kwargs})


@register_model
def lsnet_s_distill(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-S with a second classifier that learnt from RegNetY-160."""
    return _create("lsnet_s_distill", pretrained, **{**SMALL, "distilled": True, **kwargs})


@register_model
def lsnet_b_distill(pretrained: bool = False, **kwargs) -> LSNet:
    """LSNet-B with a second classifier that learnt from RegNetY-160."""
    return _create("lsnet_b_distill", pretrained, **{**BASE, "distilled": True, **kwargs})
