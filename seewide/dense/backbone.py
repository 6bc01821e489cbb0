"""Any timm network that gives features, as the backbone of a dense head.

Two families need more than their classification network: UniRepLKNet normalizes each of its maps
(`norm0` to `norm3` of the authors' detection and segmentation code), and LSNet resizes its
attention biases in another way (`lsnet_backbone`). Legend: N images, C_i channels of map i.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import timm
import torch
from timm.layers import LayerNorm2d
from torch import Tensor, nn

from ..errors import InputError
from ..layers import BiasedAttention, channels_last_on_cpu
from .lsnet_backbone import use_matrix_biases

PYRAMID = (4, 8, 16, 32)
LSNET_PYRAMID = (8, 16, 32, 64)


def build_backbone(
    name: str,
    strides: Sequence[int],
    pretrained: bool = False,
    **options: Any,
) -> nn.Module:
    """The timm network `name`, whose output is the list of its maps of `strides`.

    Args:
        name: a timm name, with a weight tag or without.
        strides: of the maps wanted; the deepest map of each stride is taken.
        pretrained: load the weights for classification that timm or seewide know.
        options: further arguments of `timm.create_model`, such as `drop_path_rate`; those of the
            family's network too, such as UniConvNet's `group_channels`.

    Raises:
        InputError: an unknown name, or a network without maps of these strides.
    """
    if not timm.is_model(name):
        raise InputError(f"unknown backbone {name!r}; timm.list_models() names those there are")
    if "out_indices" not in options:
        found = _feature_info(name)
        reductions = [info["reduction"] for info in found.info]
        missing = [stride for stride in strides if stride not in reductions]
        if missing:
            raise InputError(
                f"{name} has maps of strides {reductions}, not of {missing}; give out_indices "
                "to choose others"
            )
        options["out_indices"] = tuple(
            max(i for i, r in enumerate(reductions) if r == stride) for stride in strides
        )
    return timm.create_model(name, features_only=True, pretrained=pretrained, **options)


def select_maps(backbone: nn.Module, strides: Sequence[int]) -> tuple[int, ...]:
    """Which of the maps that `backbone` returns have `strides`; the deepest one of each.

    Raises:
        InputError: it returns no map of one of them.
    """
    found = list(backbone.feature_info.reduction())
    missing = [stride for stride in strides if stride not in found]
    if missing:
        raise InputError(f"the backbone has maps of strides {found}, not of {missing}")
    return tuple(max(i for i, r in enumerate(found) if r == stride) for stride in strides)


def _feature_info(name: str):
    try:
        with torch.device("meta"):  # no memory, no time
            return timm.create_model(name, features_only=True).feature_info
    except (RuntimeError, NotImplementedError):  # some networks compute while they are built
        return timm.create_model(name, features_only=True).feature_info


def is_lsnet(backbone: nn.Module) -> bool:
    """Whether a backbone has LSNet's attention."""
    return any(isinstance(module, BiasedAttention) for module in backbone.modules())


class FeaturePyramid(nn.Module):
    """Base of detectors and segmenters: `backbone`, its optional norms, an optional neck.

    Args:
        backbone: `timm.create_model(..., features_only=True)`, or alike: a module that returns a
            list of maps and has `feature_info.channels()` and `feature_info.reduction()`.
        take: indices of the maps that are read; None: all.
        out_norms: a layer norm over the channels of each map (UniRepLKNet).
        matrix_biases: LSNet's downstream attention; None: if the backbone is an LSNet.
        freeze_statistics: batch norms of the backbone use their running statistics in training
            too, as LSNet's detectors do with ImageNet weights; their scale and shift are learned.
    """

    def __init__(
        self,
        backbone: nn.Module,
        take: Sequence[int] | None = None,
        out_norms: bool = False,
        matrix_biases: bool | None = None,
        freeze_statistics: bool = False,
    ):
        super().__init__()
        if matrix_biases is None:
            matrix_biases = is_lsnet(backbone)
        if matrix_biases:
            use_matrix_biases(backbone)
        self.backbone = backbone
        self.freeze_statistics = freeze_statistics
        channels = backbone.feature_info.channels()
        self.take = tuple(range(len(channels)) if take is None else take)
        self.out_norms = (
            nn.ModuleList(LayerNorm2d(channels[i], eps=1e-6) for i in self.take)
            if out_norms
            else None
        )

    def maps(self, x_NCHW: Tensor) -> list[Tensor]:
        """The backbone's maps (N, C_i, H_i, W_i), fine to coarse, after the norms if there are."""
        maps = self.backbone(channels_last_on_cpu(x_NCHW))
        maps = [maps[i] for i in self.take]
        if self.out_norms is not None:
            maps = [norm(x) for norm, x in zip(self.out_norms, maps, strict=True)]
        return maps

    def no_weight_decay(self) -> set[str]:
        """LSNet's attention biases, which its detectors do not decay."""
        return {name for name, _ in self.named_parameters() if name.endswith("attention_biases")}

    def train(self, mode: bool = True):
        super().train(mode)
        if mode and self.freeze_statistics:
            for module in self.backbone.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self


def feature_key(key: str) -> str:
    """A key of the full network as its `features_only` form has it: `stages.0` -> `stages_0`."""
    return re.sub(r"^(stem|stages)\.(\d+)\.", r"\1_\2.", key)


def network_key(key: str) -> str:
    """The inverse of `feature_key`."""
    return re.sub(r"^(stem|stages)_(\d+)\.", r"\1.\2.", key)
