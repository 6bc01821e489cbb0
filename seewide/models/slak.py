"""SLaK: 51 x 51 kernels as pairs of strips, wide and sparse.

Paper: "More ConvNets in the 2020s: Scaling up Kernels Beyond 51x51 using Sparsity" (arXiv
2207.03620). The authors keep their weights on Google Drive, which has no address to load from:
    SLaK-T 1Iut2f5FMS_77jGPYoUJDQzDIXOsax1u4, SLaK-S 1etM6KQbnlsgDAZ37adsQJ3UI8Bbv2AVe,
    SLaK-B 1duUxUD3RSblQ6eDHd0n-u0aulwGypf1j (ids; then `seewide.load_checkpoint`).
Written from the paper and from facts about the authors' code.

The networks are ConvNeXt's, 1.3 times as wide, with strips for its 7 x 7 kernels. The paper counts
parameters and multiply-adds with 40% of the weights removed; these are the dense tensors, in which
removed weights are zeros.
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
from ._staged import Stage

__all__ = ["SLaK"]


class SLaK(ConvNeXtFrame):
    """SLaK.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier, 0 for none.
        global_pool: pooling before the classifier, '' for none.
        depths: blocks per stage.
        dims: channels per stage, before `width_factor`.
        width_factor: on all channels, rounded down.
        kernel_sizes: K per stage.
        strip_width: N, the short side of the strips and the size of the small kernel.
        decompose: strips as in the paper; False: one K x K kernel beside the small one, the
            starting point of section 3.1.
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
        depths: tuple[int, ...] = (3, 3, 9, 3),
        dims: tuple[int, ...] = (96, 192, 384, 768),
        width_factor: float = 1.3,
        kernel_sizes: tuple[int, ...] = (51, 49, 47, 13),
        strip_width: int = 5,
        decompose: bool = True,
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

        def mixer(dim: int, size: int) -> nn.Module:
            if decompose:
                return StripReparamBlock(dim, size, strip_width, **dd)
            return DilatedReparamBlock(dim, size, ((strip_width, 1),), **dd)

        def make_stage(i: int, in_dim: int | None, dim: int, rates: list[float]) -> Stage:
            blocks = [
                ConvNeXtBlock(mixer(dim, kernel_sizes[i]), dim, rate, ls_init_value, **dd)
                for rate in rates
            ]
            return Stage(convnext_downsample(in_dim, dim, **dd), blocks)

        super().__init__(
            make_stage,
            in_chans,
            num_classes,
            global_pool,
            depths,
            dims,
            width_factor,
            head_init_scale,
            drop_rate,
            drop_path_rate,
            **dd,
        )


# Authors' keys -> ours; the first rule that matches a key rewrites it.
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
AUTHORS_FORMS = ("training",)  # of the files that their code reads


def checkpoint_filter_fn(state_dict: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Authors' state dict to ours; ours passes unchanged."""
    if "downsample_layers.0.0.weight" not in state_dict:
        return state_dict
    return rename(state_dict, RULES)


def authors_state_dict(state_dict: dict[str, Tensor]) -> dict[str, Tensor]:
    """Ours, in training form, to the authors' keys."""
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
    """SLaK-T, 50.7 M parameters (30 M of them not zero in the paper)."""
    return _create("slak_t", pretrained, **kwargs)


@register_model
def slak_s(pretrained: bool = False, **kwargs) -> SLaK:
    """SLaK-S, 91.1 M parameters (55 M of them not zero in the paper)."""
    return _create("slak_s", pretrained, **{"depths": (3, 3, 27, 3), **kwargs})


@register_model
def slak_b(pretrained: bool = False, **kwargs) -> SLaK:
    """SLaK-B, 158.0 M parameters (95 M of them not zero in the paper)."""
    base = {"depths": (3, 3, 27, 3), "dims": (128, 256, 512, 1024)}
    return _create("slak_b", pretrained, **{**base, **kwargs})
