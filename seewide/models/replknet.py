"""RepLKNet: a network with depthwise kernels of up to 31 x 31.

Paper: "Scaling Up Your Kernels to 31x31" (arXiv 2203.06717). Weights: the authors' files, which
mmpretrain offers at stable addresses, with prefixed keys. Written from the paper and from facts
about the authors' code.

A stage alternates two residual blocks (Figure 4): BN -> pointwise -> BN -> ReLU -> large depthwise
beside a small one -> ReLU -> pointwise -> BN, and BN -> pointwise -> BN -> GELU -> pointwise -> BN.
Legend: N batch, C channels, H x W map.
"""

import re
from functools import partial

import torch
from timm.layers import ClassifierHead, DropPath, calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from ..checkpoints import invert, rename
from ..layers.conv_norm import ConvNorm, NormConvNorm, conv_norm_relu
from ..layers.dilated_reparam import DilatedReparamBlock
from ..reparam import batch_norm_affine
from ._hub import build, imagenet_cfg
from ._staged import Stage, StagedNet, StageShape, check_four_entries, stage_shapes

__all__ = ["RepLKNet"]


class RepLKBlock(nn.Module):
    """Large depthwise convolution between two pointwise ones, with a residual connection.

    Args:
        dim: C.
        kernel_size: of the large kernel.
        small_kernel: of the parallel branch; 0 for none.
        hidden: channels of the depthwise convolution.
        drop_path: probability of dropping the residual branch.
        dilation: of the depthwise convolution.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        small_kernel: int,
        hidden: int,
        drop_path: float = 0.0,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        branches = ((small_kernel, 1),) if small_kernel else ()
        self.pw1 = NormConvNorm(dim, hidden, **dd)
        self.act = nn.ReLU()
        self.dwconv = DilatedReparamBlock(hidden, kernel_size, branches, dilation, **dd)
        self.pw2 = ConvNorm(hidden, dim, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.act(self.dwconv(self.act(self.pw1(x))))
        return x + self.drop_path(self.pw2(y))


class ConvFFN(nn.Module):
    """Two pointwise convolutions with a residual connection.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, dim: int, hidden: int, drop_path: float = 0.0, device=None, dtype=None):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.pw1 = NormConvNorm(dim, hidden, **dd)
        self.act = nn.GELU()
        self.pw2 = ConvNorm(hidden, dim, **dd)
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop_path(self.pw2(self.act(self.pw1(x))))


def _stem(in_chans: int, width: int, **dd) -> nn.Module:
    return nn.Sequential(
        *conv_norm_relu(in_chans, width, 3, 2, 1, **dd),
        *conv_norm_relu(width, width, 3, 1, width, **dd),
        *conv_norm_relu(width, width, 1, 1, 1, **dd),
        *conv_norm_relu(width, width, 3, 2, width, **dd),
    )


def _downsample(in_dim: int, dim: int, shape: StageShape, **dd) -> nn.Module:
    dilation = shape.downsample_dilation
    return nn.Sequential(
        *conv_norm_relu(in_dim, dim, 1, 1, 1, **dd),
        *conv_norm_relu(dim, dim, 3, shape.stride, dim, dilation, **dd),
    )


class NormClassifierHead(ClassifierHead):
    """timm's head with a batch norm in front of the pooling."""

    def __init__(
        self,
        in_features: int,
        num_classes: int,
        pool_type: str = "avg",
        drop_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        super().__init__(in_features, num_classes, pool_type, drop_rate, **dd)
        self.norm = nn.BatchNorm2d(in_features, **dd)

    def reset(
        self,
        num_classes: int,
        pool_type: str | None = None,
        reset_other: bool = False,
        in_features: int | None = None,
        device=None,
        dtype=None,
    ) -> None:
        """As timm's; `reset_other` removes the norm."""
        super().reset(num_classes, pool_type, reset_other, in_features, device, dtype)
        if reset_other:
            self.norm = nn.Identity().train(self.training)

    def forward(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        x = self.drop(self.global_pool(self.norm(x)))
        return self.flatten(x) if pre_logits else self.flatten(self.fc(x))

    @torch.no_grad()
    def fuse(self) -> nn.Module:
        """The head with the norm fused into the classifier.

        The head itself if there is no norm, no classifier, or a pooling other than the average.
        """
        folds = isinstance(self.norm, nn.BatchNorm2d) and isinstance(self.fc, nn.Linear)
        if not folds or self.global_pool.pool_type not in ("avg", "fast", "fastavg"):
            return self
        scale, shift = batch_norm_affine(self.norm)
        dd = {"device": scale.device, "dtype": scale.dtype}
        pool_type = self.global_pool.pool_type
        head = ClassifierHead(self.in_features, self.fc.out_features, pool_type, self.drop.p, **dd)
        head.fc.weight = nn.Parameter(self.fc.weight * scale)
        head.fc.bias = nn.Parameter(self.fc.bias + self.fc.weight @ shift)
        return head


class RepLKNet(StagedNet):
    """RepLKNet.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none.
        depths: pairs of blocks per stage.
        dims: channels per stage.
        kernel_sizes: size of the large kernel per stage.
        small_kernel: size of the branch beside it, 0 for none (section 3, guideline 3).
        dw_ratio: channels of the depthwise convolution over C (1.5 in XL).
        ffn_ratio: hidden channels of the ConvFFN over C.
        output_stride: largest stride of the stages, 8, 16 or 32; below 32 the last stages are
            dilated instead of downsampled, for dense prediction.
        drop_rate: dropout before the classifier.
        drop_path_rate: that of the last pair of blocks; it increases linearly from 0.

    Raises:
        InputError: not four entries per stage, or another output stride.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: tuple[int, ...] = (2, 2, 18, 2),
        dims: tuple[int, ...] = (128, 256, 512, 1024),
        kernel_sizes: tuple[int, ...] = (31, 29, 27, 13),
        small_kernel: int = 5,
        dw_ratio: float = 1.0,
        ffn_ratio: float = 4.0,
        output_stride: int = 32,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        check_four_entries(depths=depths, dims=dims, kernel_sizes=kernel_sizes)
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        shapes = stage_shapes(4, 4, output_stride)

        def pairs(i: int) -> list[nn.Module]:
            hidden, ffn_hidden = int(dims[i] * dw_ratio), int(dims[i] * ffn_ratio)
            sizes, dilation, blocks = (kernel_sizes[i], small_kernel), shapes[i].dilation, []
            for rate in rates[i]:
                blocks.append(RepLKBlock(dims[i], *sizes, hidden, rate, dilation, **dd))
                blocks.append(ConvFFN(dims[i], ffn_hidden, rate, **dd))
            return blocks

        def downsample(i: int) -> nn.Module:
            return _downsample(dims[i - 1], dims[i], shapes[i], **dd) if i else nn.Identity()

        super().__init__(
            in_chans,
            num_classes,
            drop_rate,
            stem=_stem(in_chans, dims[0], **dd),
            stages=[Stage(downsample(i), pairs(i)) for i in range(4)],
            dims=dims,
            shapes=shapes,
            head=NormClassifierHead(dims[-1], num_classes, global_pool, drop_rate, **dd),
        )


# Rules that rename the authors' keys to ours; the first that matches a key applies. Our
# nn.Sequentials contain the ReLUs, so layer j of a stem or transition has index 2 j.
_BLOCK = r"^stages\.(\d+)\.blocks\.(\d+)\."
_OURS = r"stages.\1.blocks.\2."
RULES = [
    *((rf"^stem\.{j}\.", f"stem.{2 * j}.") for j in range(4)),
    *(
        (rf"^transitions\.{i}\.{j}\.", f"stages.{i + 1}.downsample.{2 * j}.")
        for i in range(3)
        for j in range(2)
    ),
    (r"^stages\.(\d+)\.blocks\.(\d*[02468])\.prelkb_bn\.", _OURS + "pw1.norm0."),
    (r"^stages\.(\d+)\.blocks\.(\d*[13579])\.preffn_bn\.", _OURS + "pw1.norm0."),
    (_BLOCK + r"large_kernel\.lkb_origin\.", _OURS + "dwconv.large."),
    (r"^norm\.", "head.norm."),
    (r"^head\.", "head.fc."),
]
AUTHORS_FORMS = ("training",)  # files that the authors' code reads: of unfused networks
MMPRETRAIN = [
    (r"^backbone\.stages\.3\.norm\.", "norm."),
    (r"^backbone\.", ""),
    (r"^head\.fc\.", "head."),
]


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert the authors' state dict, or mmpretrain's, to ours; ours is returned unchanged."""
    if not any(re.match(r"(backbone\.)?stem\.1\.", key) for key in state_dict):
        return state_dict  # in our layout, stem.1 is a ReLU
    if any(key.startswith("backbone.") for key in state_dict):
        state_dict = rename(state_dict, MMPRETRAIN)
    sizes = [v.shape[-1] for k, v in state_dict.items() if k.endswith("small_conv.conv.weight")]
    rules = [_small(max(sizes, default=0)), *RULES]
    return rename(rename(state_dict, rules), [(r"\.bn\.", ".norm.")])


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of an unfused network to the authors' keys."""
    sizes = {int(k) for key in state_dict for k in re.findall(r"\.small\.k(\d+)_d1\.", key)}
    rules = [*map(_small, sizes), *RULES]
    norms = [(r"^head\.norm\.", "head.norm."), (r"\.norm\.", ".bn.")]
    return rename(rename(state_dict, norms), invert(rules))


def _small(size: int) -> tuple[str, str]:
    """The rule for the small kernels, whose size is in our keys but not in the authors'."""
    return _BLOCK + r"large_kernel\.small_conv\.", _OURS + f"dwconv.small.k{size}_d1."


def _cfg(file: str, **kwargs) -> dict:
    return imagenet_cfg(
        url=f"https://download.openmmlab.com/mmclassification/v0/replknet/{file}",
        first_conv="stem.0.conv",
        license="mit",
        paper_ids="arXiv:2203.06717",
        paper_name="Scaling Up Your Kernels to 31x31",
        origin_url="https://github.com/DingXiaoH/RepLKNet-pytorch",
        **kwargs,
    )


default_cfgs = generate_default_cfgs(
    {
        "replknet_31b.in1k": _cfg("RepLKNet-31B_ImageNet-1K_224_20221024-debd6715.pth"),
        "replknet_31b.in1k_384": _cfg(
            "RepLKNet-31B_ImageNet-1K_384_20221024-3d05883f.pth", image_size=384
        ),
        "replknet_31b.in22k_ft_in1k": _cfg(
            "RepLKNet-31B_ImageNet-22K-to-1K_224_20221024-f68d7698.pth"
        ),
        "replknet_31b.in22k_ft_in1k_384": _cfg(
            "RepLKNet-31B_ImageNet-22K-to-1K_384_20221024-ca9f04ca.pth", image_size=384
        ),
        "replknet_31l.in22k_ft_in1k_384": _cfg(
            "RepLKNet-31L_ImageNet-22K-to-1K_384_20221024-6f8ee74d.pth", image_size=384
        ),
        "replknet_xl.meg73m_ft_in1k_320": _cfg(
            "RepLKNet-XL_MegData73M_ImageNet1K_20221024-664f2980.pth",
            image_size=320,
            mean=(0.5, 0.5, 0.5),
            std=(0.5, 0.5, 0.5),
        ),
    }
)


_create = partial(build, RepLKNet, pretrained_filter_fn=checkpoint_filter_fn)


@register_model
def replknet_31b(pretrained: bool = False, **kwargs) -> RepLKNet:
    """RepLKNet-31B, 79.9 M parameters."""
    return _create("replknet_31b", pretrained, **kwargs)


@register_model
def replknet_31l(pretrained: bool = False, **kwargs) -> RepLKNet:
    """RepLKNet-31L, 172.7 M parameters."""
    return _create("replknet_31l", pretrained, **{"dims": (192, 384, 768, 1536), **kwargs})


@register_model
def replknet_xl(pretrained: bool = False, **kwargs) -> RepLKNet:
    """RepLKNet-XL, 335.4 M parameters: no small kernels, wider depthwise convolutions."""
    extra_large = {
        "dims": (256, 512, 1024, 2048),
        "kernel_sizes": (27, 27, 27, 13),
        "small_kernel": 0,
        "dw_ratio": 1.5,
    }
    return _create("replknet_xl", pretrained, **{**extra_large, **kwargs})
