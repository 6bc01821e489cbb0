"""What all families share: a stem, stages and a head that follow timm's model contract.

A family's class builds these parts and says what differs.
Legend: N batch, C channels, H x W map.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from timm.layers import LayerNorm2d, get_device_dtype, trunc_normal_
from timm.models import checkpoint_seq
from timm.models._features import feature_take_indices
from timm.models.convnext import ConvNeXt
from torch import Tensor, nn

from ..errors import InputError
from ..layers import channels_last_on_cpu
from ..layers.pointwise import use_pointwise_products

Intermediates = list[Tensor] | tuple[Tensor, list[Tensor]]


@dataclass(frozen=True)
class StageShape:
    """How a stage reaches its resolution.

    Attributes:
        stride: of the downsampling before the blocks.
        downsample_dilation: of the downsampling convolution.
        dilation: of the convolutions in the blocks.
        reduction: stride of the stage's output with respect to the input image.
    """

    stride: int
    downsample_dilation: int
    dilation: int
    reduction: int


def stage_shapes(first: int, count: int, output_stride: int) -> list[StageShape]:
    """Strides and dilations of `count` stages, each of half the resolution of the one before.

    Downsampling beyond `output_stride` is replaced by dilation, which keeps the receptive field of
    every layer and the weights' meaning (DeepLab, arXiv 1606.00915, section 3.1).

    Args:
        first: stride of the first stage's output.
        count: number of stages.
        output_stride: largest stride, 8, 16, ... up to that of the undilated network.

    Raises:
        InputError: another output stride.
    """
    last = first * 2 ** (count - 1)
    allowed = [2**i for i in range(3, last.bit_length())]
    if output_stride not in allowed:
        raise InputError(
            f"output_stride must be one of {', '.join(map(str, allowed))}, got {output_stride}"
        )
    shapes = [StageShape(1, 1, 1, first)]
    for _ in range(count - 1):
        before = shapes[-1]
        stride = 2 if before.reduction < output_stride else 1
        dilation = before.dilation * (2 // stride)
        shapes.append(StageShape(stride, before.dilation, dilation, before.reduction * stride))
    return shapes


def check_four_entries(**per_stage: Sequence) -> None:
    """Raise InputError unless every argument has one entry for each of four stages."""
    if any(not isinstance(each, Sequence) or len(each) != 4 for each in per_stage.values()):
        *names, last = per_stage
        values = ", ".join(str(entries) for entries in per_stage.values())
        raise InputError(f"{', '.join(names)} and {last} need 4 entries each, got {values}")


def conv_stem(in_chans: int, dim: int, device=None, dtype=None) -> nn.Sequential:
    """Two 3x3 convolutions of stride 2 with layer norms, the first to `dim / 2` channels.

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


def downsample_conv(in_dim: int, dim: int, shape: StageShape, **dd) -> nn.Conv2d:
    """The 3x3 convolution before a stage, of stride 2, or of stride 1 where strides are dilated."""
    d = shape.downsample_dilation
    return nn.Conv2d(in_dim, dim, 3, shape.stride, padding=d, dilation=d, **dd)


def init_truncated_normal(model: nn.Module, head_init_scale: float) -> None:
    """Initialize convolutions and linear layers as ConvNeXt: truncated normal 0.02, zero biases.

    Args:
        model: a StagedNet.
        head_init_scale: factor on the classifier's weights.
    """
    for module in model.modules():
        # Drawing random numbers on the meta device takes seconds and has no effect.
        if isinstance(module, (nn.Conv2d, nn.Linear)) and not module.weight.is_meta:
            trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    classifier = model.get_classifier()
    if head_init_scale != 1.0 and isinstance(classifier, nn.Linear):
        with torch.no_grad():
            classifier.weight.mul_(head_init_scale)


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


class StagedNet(ConvNeXt):
    """Base class of the families: a stem, stages and a head with `reset()`.

    A subclass of timm's ConvNeXt, which has the same frame, so that tools that look for timm's
    classes accept these networks. Only the frame is shared: parts come from the family, and
    ConvNeXt's constructor does not run.

    Args:
        in_chans: channels of the input.
        num_classes: outputs of the classifier.
        drop_rate: dropout before the classifier, an attribute that timm reads.
        stem: what comes before the stages.
        stages: one `Stage` per entry of `dims`.
        dims: channels of each stage's output.
        shapes: strides and dilations of the stages.
        head: one of timm's classifier heads, or one with the same interface.
    """

    def __init__(
        self,
        in_chans: int,
        num_classes: int,
        drop_rate: float,
        stem: nn.Module,
        stages: Sequence[Stage],
        dims: Sequence[int],
        shapes: Sequence[StageShape],
        head: nn.Module,
    ):
        nn.Module.__init__(self)
        self.in_chans = in_chans
        self.num_classes = num_classes
        self.drop_rate = drop_rate
        self.stem = stem
        self.stages = nn.Sequential(*stages)
        self.feature_info = [
            {"num_chs": dim, "reduction": shape.reduction, "module": f"stages.{i}"}
            for i, (dim, shape) in enumerate(zip(dims, shapes, strict=True))
        ]
        self.num_features = dims[-1]
        self.head = head
        self.head_hidden_size = head.num_features
        use_pointwise_products(self)

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
        """Give all parameters and buffers their initial values.

        For models built on the meta device, after `to_empty()`.

        Args:
            head_init_scale: factor on the classifier's weights.
        """
        for module in reversed(list(self.modules())):  # a block may change what its layers have
            if hasattr(module, "reset_parameters"):
                module.reset_parameters()
        self._init_weights(head_init_scale)

    @torch.jit.ignore
    def _init_weights(self, head_init_scale: float) -> None:
        """The family's own initialization; by default there is none beside that of the layers."""

    def reset_classifier(
        self, num_classes: int, global_pool: str | None = None, reset_other: bool = False
    ) -> None:
        """Replace the classifier.

        Args:
            num_classes: outputs of the new classifier, 0 for none.
            global_pool: the new pooling; None keeps the present one.
            reset_other: whether to remove the norm of the head.
        """
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
        """Outputs of stages, and the final features, as timm defines it.

        Args:
            x: (N, in_chans, H, W).
            indices: which stages: the last n, a list of indices, or None for all.
            norm: has no effect, there is no norm between stages and head.
            stop_early: stop after the last stage that `indices` needs.
            output_fmt: "NCHW".
            intermediates_only: return the list of stage outputs only.

        Raises:
            InputError: another output format.
        """
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
        """Remove the stages after those in `indices`; returns their absolute indices."""
        take, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if cut:  # the head has the size of the last stage, which is gone
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
