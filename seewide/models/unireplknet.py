"""UniRepLKNet: a universal perception large-kernel ConvNet.

Papers: "UniRepLKNet" (arXiv 2311.15599), "Scaling Up Your Kernels" (arXiv 2410.08049).
Weights: https://huggingface.co/DingXiaoH/UniRepLKNet (Apache-2.0). Written from the papers and
from facts about the authors' code, which decides where the two differ (docs/discrepancies).

A block: depthwise convolution (large: a Dilated Reparam Block) -> BN -> SE -> linear -> GELU -> GRN
-> linear -> BN -> layer scale, beside an identity. Legend: N batch, C channels, H x W map.
"""

import torch
from timm.layers import (
    DropPath,
    LayerNorm2d,
    NormMlpClassifierHead,
    SEModule,
    calculate_drop_path_rates,
)
from timm.models import checkpoint_seq, generate_default_cfgs, register_model
from torch import Tensor, nn

from ..errors import InputError
from ..layers import DepthwiseConv2d, DilatedReparamBlock, GlobalResponseNorm
from ..reparam import batch_norm_affine, fold_batch_norm
from ._checkpoint import invert, rename
from ._hub import build, imagenet_384, imagenet_cfg
from ._staged import StagedNet

__all__ = ["UniRepLKNet"]

MERGED_FROM = 7  # smaller kernels train without branches, in the authors' code


class UniRepLKNetBlock(nn.Module):
    """Training form of the block. Section 3.1 and Figure 2 of the papers.

    Args:
        dim: C.
        kernel_size: of the depthwise convolution; 0 for none.
        drop_path: probability of dropping the residual branch.
        ls_init_value: initial layer scale.
        mlp_ratio: width of the hidden layer over C.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        dim: int,
        kernel_size: int,
        drop_path: float = 0.0,
        ls_init_value: float = 1e-6,
        mlp_ratio: float = 4.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        hidden = int(mlp_ratio * dim)
        if kernel_size == 0:
            self.dwconv = nn.Identity()
        elif kernel_size < MERGED_FROM:
            self.dwconv = DepthwiseConv2d(dim, kernel_size, bias=False, **dd)
        else:
            self.dwconv = DilatedReparamBlock(dim, kernel_size, **dd)
        self.norm = nn.BatchNorm2d(dim, **dd) if kernel_size else nn.Identity()
        self.se = SEModule(dim, rd_channels=dim // 4, **dd)
        self.fc1 = nn.Linear(dim, hidden, **dd)
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(hidden, **dd)
        self.fc2 = nn.Linear(hidden, dim, bias=False, **dd)
        self.norm2 = nn.BatchNorm2d(dim, **dd)
        self.gamma = nn.Parameter(ls_init_value * torch.ones(dim, **dd))
        self.drop_path = DropPath(drop_path) if drop_path > 0.0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.norm(self.dwconv(x)))
        y = self.fc2(self.grn(self.act(self.fc1(y.permute(0, 2, 3, 1)))))
        y = self.norm2(y.permute(0, 3, 1, 2)) * self.gamma[:, None, None]
        return x + self.drop_path(y)

    @torch.no_grad()
    def fuse(self) -> "FusedUniRepLKNetBlock":
        """The plain block that computes the same in evaluation."""
        if isinstance(self.dwconv, nn.Identity):
            dwconv = nn.Identity()
        else:
            if isinstance(self.dwconv, DilatedReparamBlock):
                kernel, bias = self.dwconv.folded()
            else:
                kernel, bias = self.dwconv.weight, self.dwconv.bias
            dwconv = DepthwiseConv2d.of(*fold_batch_norm(kernel, bias, self.norm))
        # gamma * BN(W (grn + beta)) = (gamma s W) grn + gamma (s W beta + t)
        scale, shift = batch_norm_affine(self.norm2)
        weight, beta = self.fc2.weight, self.grn.bias.flatten()
        return FusedUniRepLKNetBlock(
            dwconv,
            self.se,
            self.fc1,
            self.grn.weight,
            self.grn.eps,
            (self.gamma * scale)[:, None] * weight,
            self.gamma * (scale * (weight @ beta) + shift),
        )


class FusedUniRepLKNetBlock(nn.Module):
    """Inference form: no batch norm, no branches, no layer scale, no shift in the GRN.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        dwconv: nn.Module,
        se: SEModule,
        fc1: nn.Linear,
        grn_weight: Tensor,
        grn_eps: float,
        fc2_weight: Tensor,
        fc2_bias: Tensor,
    ):
        super().__init__()
        dim, hidden = fc2_weight.shape
        dd = {"device": fc2_weight.device, "dtype": fc2_weight.dtype}
        self.dwconv = dwconv
        self.se = se
        self.fc1 = fc1
        self.act = nn.GELU()
        self.grn = GlobalResponseNorm(hidden, bias=False, eps=grn_eps, **dd)
        self.grn.weight = nn.Parameter(grn_weight.detach().clone())
        self.fc2 = nn.Linear(hidden, dim, **dd)
        self.fc2.weight = nn.Parameter(fc2_weight.detach().clone())
        self.fc2.bias = nn.Parameter(fc2_bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.dwconv(x))
        y = self.fc2(self.grn(self.act(self.fc1(y.permute(0, 2, 3, 1)))))
        return x + y.permute(0, 3, 1, 2)


class UniRepLKNetStage(nn.Module):
    """A downsampling layer (not in the first stage, which follows the stem) and blocks."""

    def __init__(
        self,
        in_dim: int,
        dim: int,
        kernel_sizes: tuple[int, ...],
        drop_path_rates: list[float],
        ls_init_value: float,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.grad_checkpointing = False
        if in_dim == dim:
            self.downsample = nn.Identity()
        else:  # norm after the convolution, unlike ConvNeXt
            self.downsample = nn.Sequential(
                nn.Conv2d(in_dim, dim, 3, stride=2, padding=1, **dd), LayerNorm2d(dim, **dd)
            )
        self.blocks = nn.Sequential(
            *(
                UniRepLKNetBlock(dim, size, rate, ls_init_value, **dd)
                for size, rate in zip(kernel_sizes, drop_path_rates, strict=True)
            )
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


class UniRepLKNet(StagedNet):
    """UniRepLKNet.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none.
        depths: blocks per stage.
        dims: channels per stage; the first must be even.
        kernel_sizes: per stage, one size for all blocks or a pattern repeated over them
            (Table 2 of 2311.15599: 13, 3, 3 in stage 3 of S); 0 for no convolution.
        ls_init_value: initial layer scale.
        head_init_scale: factor on the classifier's initial weights.
        drop_rate: dropout before the classifier.
        drop_path_rate: of the last block, rising linearly from 0.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: tuple[int, ...] = (3, 3, 27, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768),
        kernel_sizes: tuple[int | tuple[int, ...], ...] = (3, 13, (13, 3, 3), 13),
        ls_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        if not len(depths) == len(dims) == len(kernel_sizes) == 4:
            raise InputError(
                f"depths, dims and kernel_sizes need 4 entries each, got {depths}, {dims}, "
                f"{kernel_sizes}"
            )
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.stem = nn.Sequential(
            nn.Conv2d(in_chans, dims[0] // 2, 3, stride=2, padding=1, **dd),
            LayerNorm2d(dims[0] // 2, **dd),
            nn.GELU(),
            nn.Conv2d(dims[0] // 2, dims[0], 3, stride=2, padding=1, **dd),
            LayerNorm2d(dims[0], **dd),
        )
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        stages, in_dim = [], dims[0]
        self.feature_info = []
        for i, (depth, dim, sizes) in enumerate(zip(depths, dims, kernel_sizes, strict=True)):
            pattern = (sizes,) if isinstance(sizes, int) else tuple(sizes)
            sizes = tuple(pattern[j % len(pattern)] for j in range(depth))
            stages.append(UniRepLKNetStage(in_dim, dim, sizes, rates[i], ls_init_value, **dd))
            self.feature_info.append(
                {"num_chs": dim, "reduction": 4 * 2**i, "module": f"stages.{i}"}
            )
            in_dim = dim
        self.stages = nn.Sequential(*stages)
        self.num_features = dims[-1]
        self.head = NormMlpClassifierHead(
            self.num_features, num_classes, pool_type=global_pool, drop_rate=drop_rate, **dd
        )
        self.head_hidden_size = self.head.num_features
        self.init_weights(head_init_scale)


# Authors' keys -> ours; the first rule that matches a key rewrites it.
_BLOCK = r"^stages\.(\d+)\.(\d+)\."
_OURS = r"stages.\1.blocks.\2."
RULES = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    (_BLOCK + r"dwconv\.dil_conv_k(\d+)_(\d+)\.", _OURS + r"dwconv.small.k\3_d\4.conv."),
    (_BLOCK + r"dwconv\.dil_bn_k(\d+)_(\d+)\.", _OURS + r"dwconv.small.k\3_d\4.norm."),
    (_BLOCK + r"dwconv\.origin_bn\.", _OURS + "dwconv.large.norm."),
    (_BLOCK + r"se\.down\.", _OURS + "se.fc1."),
    (_BLOCK + r"se\.up\.", _OURS + "se.fc2."),
    (_BLOCK + r"pwconv1\.1\.", _OURS + "fc1."),
    (_BLOCK + r"act\.1\.gamma$", _OURS + "grn.weight"),
    (_BLOCK + r"act\.1\.beta$", _OURS + "grn.bias"),
    (_BLOCK + r"pwconv2\.0\.", _OURS + "fc2."),
    (_BLOCK + r"pwconv2\.2\.", _OURS + "norm2."),
    (_BLOCK, _OURS),
    (r"^norm\.", "head.norm."),
    (r"^head\.", "head.fc."),
]
AUTHORS_FORMS = ("training", "merged")  # of the files that their code reads


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Authors' state dict, training or merged form, to ours; ours passes unchanged."""
    if "downsample_layers.0.0.weight" not in state_dict:
        return state_dict
    # A merged large kernel keeps its name, `lk_origin`, and gains a bias.
    merged = not any(".origin_bn." in key for key in state_dict)
    large = "dwconv." if merged else "dwconv.large.conv."
    rules = [(_BLOCK + r"dwconv\.lk_origin\.", _OURS + large), *RULES]
    return rename(state_dict, rules)


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ours, training or merged form, to the authors' keys."""
    named = {}
    for key, value in state_dict.items():
        module, _, parameter = key.rpartition(".")
        # In the merged form only the size of a kernel tells that it was a large one.
        if module.endswith(".dwconv") and state_dict[f"{module}.weight"].shape[-1] >= MERGED_FROM:
            key = f"{module}.lk_origin.{parameter}"
        named[key] = value
    rules = [(_BLOCK + r"dwconv\.lk_origin\.", _OURS + "dwconv.large.conv."), *RULES]
    return rename(named, invert(rules))


def _cfg(file: str = "", **kwargs) -> dict:
    hub = {"hf_hub_id": "DingXiaoH/UniRepLKNet", "hf_hub_filename": file} if file else {}
    return imagenet_cfg(
        license="apache-2.0",
        paper_ids="arXiv:2311.15599",
        paper_name="UniRepLKNet",
        origin_url="https://github.com/AILab-CVC/UniRepLKNet",
        **hub,
        **kwargs,
    )


def _cfg384(file: str) -> dict:
    return _cfg(file, **imagenet_384())


default_cfgs = generate_default_cfgs(
    {
        "unireplknet_a.in1k": _cfg("unireplknet_a_in1k_224_acc77.03.pth"),
        "unireplknet_f.in1k": _cfg("unireplknet_f_in1k_224_acc78.58.pth"),
        "unireplknet_p.in1k": _cfg("unireplknet_p_in1k_224_acc80.23.pth"),
        "unireplknet_n.in1k": _cfg("unireplknet_n_in1k_224_acc81.64.pth"),
        "unireplknet_t.in1k": _cfg("unireplknet_t_in1k_224_acc83.21.pth"),
        "unireplknet_s.in1k": _cfg("unireplknet_s_in1k_224_acc83.91.pth"),
        "unireplknet_s.in22k_ft_in1k_384": _cfg384("unireplknet_s_in22k_to_in1k_384_acc86.44.pth"),
        "unireplknet_s.in22k": _cfg("unireplknet_s_in22k_pretrain.pth", num_classes=21841),
        "unireplknet_b.in22k_ft_in1k_384": _cfg384("unireplknet_b_in22k_to_in1k_384_acc87.40.pth"),
        "unireplknet_b.in22k": _cfg("unireplknet_b_in22k_pretrain.pth", num_classes=21841),
        "unireplknet_l.in22k_ft_in1k_384": _cfg384("unireplknet_l_in22k_to_in1k_384_acc87.88.pth"),
        "unireplknet_l.in22k": _cfg("unireplknet_l_in22k_pretrain.pth", num_classes=21841),
        "unireplknet_xl.in22k_ft_in1k_384": _cfg384(
            "unireplknet_xl_in22k_to_in1k_384_acc87.96.pth"
        ),
        "unireplknet_xl.in22k": _cfg("unireplknet_xl_in22k_pretrain.pth", num_classes=21841),
        "unireplknet_h.untrained": _cfg(),  # Table 4 of 2410.08049; no weights were published
    }
)


def _create(variant: str, pretrained: bool, **kwargs) -> UniRepLKNet:
    return build(
        UniRepLKNet,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "flatten_sequential": True},
        **kwargs,
    )


def _small(width: int, depths: tuple[int, ...], kwargs: dict) -> dict:
    """A to N: 13x13 in all blocks after stage 1."""
    dims = (width, 2 * width, 4 * width, 8 * width)
    return {"depths": depths, "dims": dims, "kernel_sizes": (3, 13, 13, 13), **kwargs}


def _large(width: int, kwargs: dict) -> dict:
    """S to H: stage 3 alternates one 13x13 block with two 3x3 blocks."""
    dims = (width, 2 * width, 4 * width, 8 * width)
    sizes = (3, 13, (13, 3, 3), 13)
    return {"depths": (3, 3, 27, 3), "dims": dims, "kernel_sizes": sizes, **kwargs}


@register_model
def unireplknet_a(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-A (Atto), 4.4 M parameters when fused."""
    return _create("unireplknet_a", pretrained, **_small(40, (2, 2, 6, 2), kwargs))


@register_model
def unireplknet_f(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-F (Femto), 6.2 M parameters when fused."""
    return _create("unireplknet_f", pretrained, **_small(48, (2, 2, 6, 2), kwargs))


@register_model
def unireplknet_p(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-P (Pico), 10.7 M parameters when fused."""
    return _create("unireplknet_p", pretrained, **_small(64, (2, 2, 6, 2), kwargs))


@register_model
def unireplknet_n(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-N (Nano), 18.3 M parameters when fused."""
    return _create("unireplknet_n", pretrained, **_small(80, (2, 2, 8, 2), kwargs))


@register_model
def unireplknet_t(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-T (Tiny), 31.0 M parameters when fused."""
    tiny = {
        "depths": (3, 3, 18, 3),
        "dims": (80, 160, 320, 640),
        "kernel_sizes": (3, 13, (13, 3), 13),
    }
    return _create("unireplknet_t", pretrained, **{**tiny, **kwargs})


@register_model
def unireplknet_s(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-S (Small), 55.6 M parameters when fused."""
    return _create("unireplknet_s", pretrained, **_large(96, kwargs))


@register_model
def unireplknet_b(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-B (Base), 97.9 M parameters when fused."""
    return _create("unireplknet_b", pretrained, **_large(128, kwargs))


@register_model
def unireplknet_l(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-L (Large), 218.3 M parameters when fused."""
    return _create("unireplknet_l", pretrained, **_large(192, kwargs))


@register_model
def unireplknet_xl(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-XL (Extra Large), 386.4 M parameters when fused."""
    return _create("unireplknet_xl", pretrained, **_large(256, kwargs))


@register_model
def unireplknet_h(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """UniRepLKNet-H (Huge). Only Table 4 of 2410.08049 knows it: no code, no weights."""
    return _create("unireplknet_h", pretrained, **_large(480, kwargs))
