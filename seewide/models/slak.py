"""SLaK: 51 x 51 kernels as pairs of strips, wide and sparse.

Paper: "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity" (arXiv
2207.03620). The authors' weights are on Google Drive, from where they cannot be downloaded
automatically; download a file, then use `seewide.load_checkpoint`. The ids are
    SLaK-T 1Iut2f5FMS_77jGPYoUJDQzDIXOsax1u4, SLaK-S 1etM6KQbnlsgDAZ37adsQJ3UI8Bbv2AVe,
    SLaK-B 1duUxUD3RSblQ6eDHd0n-u0aulwGypf1j.
Written from the paper and from facts about the authors' code.

The networks are ConvNeXt's, 1.3 times as wide, with strips instead of its 7 x 7 kernels. The paper
counts parameters and multiply-adds with 40% of the weights removed; the tensors here are dense, and
removed weights are zeros in them.
"""

from functools import partial

from timm.models import generate_default_cfgs, register_model
from torch import Tensor, nn

from ..checkpoints import invert, rename
from ..errors import InputError
from ..layers.dilated_reparam import DilatedReparamBlock
from ..layers.strips import StripReparamBlock
from ._convnext import ConvNeXtBlock, ConvNeXtFrame, convnext_downsample
from ._hub import build, imagenet_cfg
from ._staged import Stage, StageShape

__all__ = ["SLaK"]


class SLaK(ConvNeXtFrame):
    """SLaK.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none.
        depths: blocks per stage.
        dims: channels per stage, before `width_factor`.
        width_factor: factor on all channels, rounded down.
        width_multiple: round widths down to a multiple of this; 1 gives the published widths, which
            are odd in places (249).
        kernel_sizes: K per stage.
        strip_width: N, the short side of the strips and the size of the small kernel.
        decompose: whether kernels are strips as in the paper; otherwise one K x K kernel beside
            the small one, the starting point of section 3.1.
        output_stride: largest stride of the stages, 8, 16 or 32; below 32 the last stages are
            dilated instead of downsampled, for dense prediction.
        ls_init_value: initial layer scale.
        head_init_scale: factor on the classifier's initial weights.
        drop_rate: dropout before the classifier.
        drop_path_rate: that of the last block; it increases linearly from 0.

    Raises:
        InputError: not four entries per stage, a kernel smaller than the strip width, no channels
            left, or another output stride.
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
        strip_width: int = 5,
        decompose: bool = True,
        output_stride: int = 32,
        ls_init_value: float = 1e-6,
        head_init_scale: float = 1.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device=None,
        dtype=None,
    ):
        dd = {"device": device, "dtype": dtype}
        if len(kernel_sizes) != 4 or min(kernel_sizes) < strip_width:
            raise InputError(
                f"kernel_sizes needs 4 entries of at least {strip_width=}, got {kernel_sizes}"
            )

        def mixer(dim: int, size: int, dilation: int) -> nn.Module:
            if decompose:
                return StripReparamBlock(dim, size, strip_width, dilation, **dd)
            return DilatedReparamBlock(dim, size, ((strip_width, 1),), dilation, **dd)

        def make_stage(
            i: int, in_dim: int | None, dim: int, rates: list[float], shape: StageShape
        ) -> Stage:
            blocks = [
                ConvNeXtBlock(
                    mixer(dim, kernel_sizes[i], shape.dilation), dim, rate, ls_init_value, **dd
                )
                for rate in rates
            ]
            return Stage(convnext_downsample(in_dim, dim, shape, **dd), blocks)

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


# Rules that rename the authors' keys to ours; the first that matches a key applies.
_BLOCK = r"^stages\.(\d+)\.(\d+)\."
_OURS = r"stages.\1.blocks.\2."
RULES = [
    (r"^downsample_layers\.0\.", "stem."),
    (r"^downsample_layers\.(\d+)\.", r"stages.\1.downsample."),
    *(
        (_BLOCK + rf"large_kernel\.{theirs}\.{theirs_part}\.", _OURS + f"mixer.{ours}.{part}.")
        for theirs, ours in (
            ("LoRA1", "vertical"),
            ("LoRA2", "horizontal"),
            ("small_conv", "small"),
        )
        for theirs_part, part in (("conv", "conv"), ("bn", "norm"))
    ),
    (_BLOCK + r"gamma$", _OURS + "fc2.gamma"),
    (_BLOCK + r"pwconv(\d)\.", _OURS + r"fc\3."),
    (_BLOCK, _OURS),
    (r"^norm\.", "head.norm."),
    (r"^head\.", "head.fc."),
]
AUTHORS_FORMS = ("training",)  # files that the authors' code reads: of unfused networks


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Convert the authors' state dict to ours; ours is returned unchanged."""
    if "downsample_layers.0.0.weight" not in state_dict:
        return state_dict
    return rename(state_dict, RULES)


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert the state dict of an unfused network to the authors' keys."""
    return rename(state_dict, invert(RULES))


def _cfg(**kwargs) -> dict:
    return imagenet_cfg(
        license="mit",
        paper_ids="arXiv:2207.03620",
        paper_name="More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity",
        origin_url="https://github.com/VITA-Group/SLaK",
        **kwargs,
    )


default_cfgs = generate_default_cfgs(
    {"slak_t.in1k": _cfg(), "slak_s.in1k": _cfg(), "slak_b.in1k": _cfg()}
)


_create = partial(build, SLaK, pretrained_filter_fn=checkpoint_filter_fn)


@register_model
def slak_t(pretrained: bool = False, **kwargs) -> SLaK:
    """SLaK-T, 50.7 M parameters (in the paper 30 M, after 40% were removed)."""
    return _create("slak_t", pretrained, **kwargs)


@register_model
def slak_s(pretrained: bool = False, **kwargs) -> SLaK:
    """SLaK-S, 91.1 M parameters (in the paper 55 M, after 40% were removed)."""
    return _create("slak_s", pretrained, **{"depths": (3, 3, 27, 3), **kwargs})


@register_model
def slak_b(pretrained: bool = False, **kwargs) -> SLaK:
    """SLaK-B, 158.0 M parameters (in the paper 95 M, after 40% were removed)."""
    base = {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)}
    return _create("slak_b", pretrained, **{**base, **kwargs})
