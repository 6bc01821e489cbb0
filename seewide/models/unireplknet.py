"""UniRepLKNet: a universal perception large-kernel ConvNet.

Papers: "UniRepLKNet" (arXiv 2311.15599), "Scaling Up Your Kernels" (arXiv 2410.08049).
Weights: https://huggingface.co/DingXiaoH/UniRepLKNet (Apache-2.0). Written from the papers and
from facts about the authors' code, which decides where the two differ (docs/discrepancies).

The blocks are in `seewide.layers.unireplknet_block`.
"""

from functools import partial
from itertools import cycle

from timm.layers import LayerNorm2d, NormMlpClassifierHead, calculate_drop_path_rates
from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from ..checkpoints import invert, rename
from ..errors import InputError
from ..layers import UniRepLKNetBlock
from ..layers.unireplknet_block import REPARAM_FROM
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

__all__ = ["UniRepLKNet"]


def _downsample(in_dim: int, dim: int, shape: StageShape, **dd) -> nn.Module:
    """The norm follows the convolution, unlike in ConvNeXt."""
    return nn.Sequential(downsample_conv(in_dim, dim, shape, **dd), LayerNorm2d(dim, **dd))


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
        extra: structure after the depthwise convolution: "se", or "bottleneck", "two_pointwise",
            "two_depthwise", "none" (Table 3a of 2410.08049; `seewide.layers.extra_structure`).
        reparam: branches that large kernels are trained with: "dilated", or dense ones of the
            "same_size" or the "same_reach", or "none" (Table 3b of 2410.08049).
        output_stride: largest stride of the stages, 8, 16 or 32; below 32 the last stages are
            dilated instead of downsampled, for dense prediction.
        ls_init_value: initial layer scale.
        head_init_scale: factor on the classifier's initial weights.
        drop_rate: dropout before the classifier.
        drop_path_rate: that of the last block; it increases linearly from 0.

    Raises:
        InputError: not four entries per stage, an unknown name, a kernel size without known
            branches, or another output stride.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        depths: tuple[int, ...] = (3, 3, 27, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768),
        kernel_sizes: tuple[int | tuple[int, ...], ...] = (3, 13, (13, 3, 3), 13),
        extra: str = "se",
        reparam: str = "dilated",
        output_stride: int = 32,
        ls_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        check_four_entries(depths=depths, dims=dims, kernel_sizes=kernel_sizes)
        rates = calculate_drop_path_rates(drop_path_rate, depths, stagewise=True)
        shapes = stage_shapes(4, 4, output_stride)
        structure = {"ls_init_value": ls_init_value, "extra": extra, "reparam": reparam, **dd}

        def blocks(i: int) -> list[nn.Module]:
            sizes = kernel_sizes[i]
            pattern = (sizes,) if isinstance(sizes, int) else tuple(sizes)
            if not pattern:
                raise InputError(f"kernel_sizes of stage {i} name no size, got {kernel_sizes}")
            return [
                UniRepLKNetBlock(dims[i], size, rate, dilation=shapes[i].dilation, **structure)
                for size, rate in zip(cycle(pattern), rates[i], strict=False)
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
        init_truncated_normal(self, head_init_scale)


# Rules that rename the authors' keys to ours; the first that matches a key applies.
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
AUTHORS_FORMS = ("training", "fused")  # files that the authors' code reads: unfused and fused


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert the authors' state dict, unfused or fused, to ours; ours is returned unchanged."""
    if "downsample_layers.0.0.weight" not in state_dict:
        return state_dict
    # A fused large kernel has the name of the unfused one, `lk_origin`, and a bias.
    fused = not any(".origin_bn." in key for key in state_dict)
    large = "dwconv." if fused else "dwconv.large.conv."
    rules = [(_BLOCK + r"dwconv\.lk_origin\.", _OURS + large), *RULES]
    return rename(state_dict, rules)


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of an unfused or fused network to the authors' keys."""
    named = {}
    for key, value in state_dict.items():
        module, _, parameter = key.rpartition(".")
        # In a fused network only its size distinguishes a large kernel.
        if module.endswith(".dwconv") and state_dict[f"{module}.weight"].shape[-1] >= REPARAM_FROM:
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


default_cfgs = generate_default_cfgs(
    {
        "unireplknet_a.in1k": _cfg("unireplknet_a_in1k_224_acc77.03.pth"),
        "unireplknet_f.in1k": _cfg("unireplknet_f_in1k_224_acc78.58.pth"),
        "unireplknet_p.in1k": _cfg("unireplknet_p_in1k_224_acc80.23.pth"),
        "unireplknet_n.in1k": _cfg("unireplknet_n_in1k_224_acc81.64.pth"),
        "unireplknet_t.in1k": _cfg("unireplknet_t_in1k_224_acc83.21.pth"),
        "unireplknet_s.in1k": _cfg("unireplknet_s_in1k_224_acc83.91.pth"),
        "unireplknet_s.in22k_ft_in1k_384": _cfg(
            "unireplknet_s_in22k_to_in1k_384_acc86.44.pth", image_size=384
        ),
        "unireplknet_s.in22k": _cfg("unireplknet_s_in22k_pretrain.pth", num_classes=21841),
        "unireplknet_b.in22k_ft_in1k_384": _cfg(
            "unireplknet_b_in22k_to_in1k_384_acc87.40.pth", image_size=384
        ),
        "unireplknet_b.in22k": _cfg("unireplknet_b_in22k_pretrain.pth", num_classes=21841),
        "unireplknet_l.in22k_ft_in1k_384": _cfg(
            "unireplknet_l_in22k_to_in1k_384_acc87.88.pth", image_size=384
        ),
        "unireplknet_l.in22k": _cfg(
            "unireplknet_l_in22k_pretrain.pth", num_classes=21841, image_size=192
        ),
        "unireplknet_xl.in22k_ft_in1k_384": _cfg(
            "unireplknet_xl_in22k_to_in1k_384_acc87.96.pth", image_size=384
        ),
        "unireplknet_xl.in22k": _cfg(
            "unireplknet_xl_in22k_pretrain.pth", num_classes=21841, image_size=192
        ),
        "unireplknet_h.untrained": _cfg(),  # Table 4 of 2410.08049; no weights were published
        "unireplknet_vanilla.untrained": _cfg(),
    }
)


_create = partial(build, UniRepLKNet, pretrained_filter_fn=checkpoint_filter_fn)


def _small(width: int, depths: tuple[int, ...], kwargs: dict) -> dict:
    """A to N: 13x13 kernels in all blocks after stage 1."""
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
    """UniRepLKNet-H (Huge), from Table 4 of 2410.08049; neither code nor weights are public."""
    return _create("unireplknet_h", pretrained, **_large(480, kwargs))


@register_model
def unireplknet_vanilla(pretrained: bool = False, **kwargs) -> UniRepLKNet:
    """The vanilla network of the ablations (2410.08049, section 3.2), 31.3 M parameters when fused.

    ConvNeXt-T's depths and widths, 13x13 kernels after stage 1, no extra structure. Tables 2 and 3
    change `extra`, `reparam`, `kernel_sizes` and `depths`.
    """
    vanilla = {
        "depths": (3, 3, 9, 3),
        "dims": (96, 192, 384, 768),
        "kernel_sizes": (3, 13, 13, 13),
        "extra": "none",
    }
    return _create("unireplknet_vanilla", pretrained, **{**vanilla, **kwargs})
