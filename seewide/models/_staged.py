"""What all our networks share towards timm: a stem, stages in sequence, a head.

A family's class builds these parts and says what differs.
Legend: N batch, C channels, H x W map.
"""

from collections.abc import Sequence

import torch
from timm.layers import LayerNorm2d, get_device_dtype, trunc_normal_
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from ..errors import InputError
from ..layers import channels_last_on_cpu
from ..layers.pointwise import use_pointwise_products

Intermediates = list[Tensor] | tuple[Tensor, list[Tensor]]


def four_each(**per_stage: Sequence) -> None:
    """Raise InputError unless every argument has an entry for each of four stages."""
    if any(not isinstance(each, Sequence) or len(each) != 4 for each in per_stage.values()):
        *names, last = per_stage
        values = ", ".join(str(entries) for entries in per_stage.values())
        raise InputError(f"{', '.join(names)} and {last} need 4 entries each, got {values}")


def conv_stem(in_chans: int, dim: int, device=None, dtype=None) -> nn.Sequential:
    """Two 3x3 convolutions of stride 2 with layer norms, through `dim / 2` channels.

    Shape: (N, in_chans, H, W) -> (N, dim, ceil(H / 4), ceil(W / 4))
    """
    dd = {"device": device, "dtype": dtype}
    return nn.Sequential(
        nn.Conv2d(in_chans, dim // 2, 3, stride=2, padding=1, **dd),
        LayerNorm2d(dim // 2, **dd),
        nn.GELU(),
        nn.Conv2d(dim // 2, dim, 3, stride=2, padding=1, **dd),
        LayerNorm2d(dim, **dd),
    )


class Stage(nn.Module):
    """A downsampling layer (an identity after a stem), then blocks."""

    def __init__(self, downsample: nn.Module, blocks: Sequence[nn.Module]):
        super().__init__()
        self.grad_checkpointing = False
        self.downsample = downsample
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsample(x)
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint_seq(self.blocks, x)
        return self.blocks(x)


class StagedNet(nn.Module):
    """Base of the families: timm's contract for a stem, stages and a head with `reset()`.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier.
        drop_rate: dropout before the classifier, for timm to read.
        stem: what comes before the stages.
        stages: `Stage`s, each of half the resolution of the one before.
        dims: channels that each stage puts out.
        first_stride: of the first stage's output against the input.
        head: one of timm's classifier heads, or alike.
    """

    def __init__(
        self,
        in_chans: int,
        num_classes: int,
        drop_rate: float,
        stem: nn.Module,
        stages: Sequence[Stage],
        dims: Sequence[int],
        first_stride: int,
        head: nn.Module,
    ):
        super().__init__()
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.feature_info = [
            {"num_chs": dim, "reduction": first_stride * 2**i, "module": f"stages.{i}"}
            for i, dim in enumerate(dims)
        ]
        self.num_features = dims[-1]
        self.head = head
        self.head_hidden_size = head.num_features
        use_pointwise_products(self)

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute blocks in the backward pass instead of keeping their activations."""
        for stage in self.stages:
            stage.grad_checkpointing = enable

    @torch.jit.ignore
    def group_matcher(self, coarse: bool = False) -> dict:
        """Parameter groups for layer-wise learning rate decay, one per block."""
        if coarse:
            return {"stem": r"^stem", "blocks": r"^stages\.(\d+)"}
        return {
            "stem": r"^stem",
            "blocks": [
                (r"^stages\.(\d+)\.downsample", (0,)),
                (r"^stages\.(\d+)\.blocks\.(\d+)", None),
            ],
        }

    @torch.jit.ignore
    def init_weights(self, head_init_scale: float = 1.0) -> None:
        """Truncated normal of 0.02 for convolutions and linear layers, zero biases."""
        for module in self.modules():
            # Drawing on the meta device takes seconds and yields nothing.
            if isinstance(module, (nn.Conv2d, nn.Linear)) and not module.weight.is_meta:
                trunc_normal_(module.weight, std=0.02)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
        classifier = self.get_classifier()
        if head_init_scale != 1.0 and isinstance(classifier, nn.Linear):
            with torch.no_grad():
                classifier.weight.mul_(head_init_scale)

    @torch.jit.ignore
    def get_classifier(self) -> nn.Module:
        """The classifier layer."""
        return self.head.fc

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None, reset_other: bool = False
    ) -> None:
        """A new classifier; `global_pool=None` keeps the pooling, `reset_other` drops the norm."""
        dd = get_device_dtype(self)
        self.num_classes = num_classes
        self.head.reset(
            num_classes, global_pool, reset_other=reset_other, in_features=self.num_features, **dd
        )
        self.head_hidden_size = self.head.num_features

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Intermediates:
        """Stage outputs (and the final features), as timm defines it."""
        if output_fmt != "NCHW":
            raise InputError(f"output_fmt must be 'NCHW', got {output_fmt!r}")
        take, last = feature_take_indices(len(self.stages), indices)
        intermediates = []
        x = self.stem(channels_last_on_cpu(x))
        stages = self.stages[: last + 1] if stop_early else self.stages
        for index, stage in enumerate(stages):
            x = stage(x)
            if index in take:
                intermediates.append(x)
        return intermediates if intermediates_only else (x, intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop what the stages `indices` do not need; returns their absolute indices."""
        take, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if cut:  # the features now end earlier, and the head is sized for the old end
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_head or cut:
            self.reset_classifier(0, "", reset_other=True)
        return take

    def forward_features(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_features, H', W'), unpooled."""
        return self.stages(self.stem(channels_last_on_cpu(x)))

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Pooling, norm and, unless `pre_logits`, the classifier."""
        return self.head(x, pre_logits=True) if pre_logits else self.head(x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_chans, H, W) -> (N, num_classes)."""
        return self.forward_head(self.forward_features(x))
