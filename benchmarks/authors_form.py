"""The authors' form of our networks: the same weights in stock torch modules.

What the authors' repositories formulate, written from facts about them: depthwise convolutions are
`nn.Conv2d`, layer norm over channels, GRN and SE are written out, SKA unfolds, DCNv3 samples with
`grid_sample`, PeLK (which has no public code) expands its kernels and convolves densely. Blocks
are written out here too, so that a faster block of ours does not make its baseline faster.
Legend: N batch, C channels, H x W map.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import timm.layers
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import baselines
from seewide.layers import (
    BiasedAttention,
    DCNv3,
    DepthwiseConv2d,
    DepthwiseConv2dLast,
    DilatedReparamBlock,
    GlobalResponseNorm,
    LSConv,
    PartialMixer,
    PeripheralConv2d,
)
from seewide.layers.biased_attention import relative_biases
from seewide.layers.ls_conv import FusedLSConv
from seewide.layers.pointwise import PointwiseConv2d, PointwiseLinear
from seewide.layers.rfa import AggregatorLayer, ReceptiveFieldAggregator
from seewide.layers.scaled_linear import ScaledLinear
from seewide.layers.unireplknet_block import FusedUniRepLKNetBlock, UniRepLKNetBlock
from seewide.models._staged import StagedNet
from seewide.models.uniconvnet import FusedUniConvNetBlock, UniConvNetBlock
from seewide.ops.peripheral import position_map


def authors_form(model: StagedNet) -> nn.Module:
    """A copy of one of our networks, unfused or fused, as its authors formulate it.

    It has the weights of `model` and none of its operators, and keeps the layout of its input.
    """
    copied = copy.deepcopy(model)
    parts = (_swap(part) for part in (copied.stem, copied.stages, copied.head))
    return Network(*parts).train(model.training)


def _swap(module: nn.Module) -> nn.Module:
    """Replace every module of ours that SWAPS knows, inside first."""
    for name, child in module.named_children():
        setattr(module, name, _swap(child))
    for kind in type(module).__mro__:
        if kind in SWAPS:
            return SWAPS[kind](module)
    return module


class Network(nn.Module):
    """Stem, stages, head; no change of layout on the way."""

    def __init__(self, stem: nn.Module, stages: nn.Module, head: nn.Module):
        super().__init__()
        self.stem, self.stages, self.head = stem, stages, head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.stages(self.stem(x)))


class Rewritten(nn.Module):
    """A module with the children and parameters of another, and a forward pass of its own."""

    def __init__(self, original: nn.Module):
        super().__init__()
        self.__dict__.update(original.__dict__)


def conv2d(layer: nn.Conv2d) -> nn.Conv2d:
    """A plain nn.Conv2d with the weights of one of our subclasses."""
    plain = nn.Conv2d.__new__(nn.Conv2d)
    plain.__dict__.update(layer.__dict__)
    return plain


def linear(layer: nn.Linear) -> nn.Linear:
    """A plain nn.Linear with the weights of one of our subclasses."""
    plain = nn.Linear.__new__(nn.Linear)
    plain.__dict__.update(layer.__dict__)
    return plain


class PlainScaledLinear(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight, self.bias) * self.gamma


class Conv2dLast(nn.Module):
    """A convolution between two permutations, as UniConvNet's and InternImage's DCNv3 has it."""

    def __init__(self, original: nn.Conv2d):
        super().__init__()
        self.conv = conv2d(original)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


class LayerNorm2d(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        return baselines.eager_layer_norm(x, self.weight, self.bias, self.eps)


class GRN(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        return baselines.eager_grn(x, self.weight, self.bias, self.eps)


class SE(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        fc1, fc2 = self.fc1, self.fc2
        return baselines.eager_se(x, fc1.weight, fc1.bias, fc2.weight, fc2.bias)


class Branches(Rewritten):
    """The large kernel and the dilated ones, each with its batch norm, summed."""

    def forward(self, x: Tensor) -> Tensor:
        y = self.large.norm(self.large.conv(x))
        for branch in self.small.values():
            y = y + branch.norm(branch.conv(x))
        return y


class UniRepLKNetTraining(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.norm(self.dwconv(x))).permute(0, 2, 3, 1)
        y = self.fc2(self.grn(F.gelu(self.fc1(y)))).permute(0, 3, 1, 2)
        return x + self.drop_path(self.gamma.view(1, -1, 1, 1) * self.norm2(y))


class UniRepLKNetMerged(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        y = self.se(self.dwconv(x)).permute(0, 2, 3, 1)
        y = self.fc2(self.grn(F.gelu(self.fc1(y)))).permute(0, 3, 1, 2)
        return x + y


class SmallKernelLSConv(Rewritten):
    """LSConv over an unfolded SKA."""

    def _aggregated(self, x: Tensor) -> Tensor:
        weight = self.weight_norm(self.to_weight(self.lkp(x)))
        return baselines.unfolded_aggregation(x, weight.unflatten(1, (self.sets, -1)))

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self._aggregated(x)) + x


class MergedLSConv(SmallKernelLSConv):
    """Theirs keeps the batch norm, which is a scale and a shift in evaluation."""

    def forward(self, x: Tensor) -> Tensor:
        return self._aggregated(x) * self.scale + self.shift + x


class Attention(Rewritten):
    """LeViT's: products and a softmax written out."""

    def forward(self, x: Tensor) -> Tensor:
        N, _, H, W = x.shape
        q, k, v = self.qkv(x).split(self.widths, dim=1)
        q, k, v = (t.reshape(N, self.num_heads, -1, H * W) for t in (self.dw(q), k, v))
        scores = (q.transpose(-2, -1) @ k) * q.shape[2] ** -0.5
        scores = scores + relative_biases(self.attention_biases, self.resolution, x)
        y = v @ scores.softmax(-1).transpose(-2, -1)
        return self.proj(self.act(y.reshape(N, -1, H, W)))


class SampledDCNv3(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        near = self.dw_conv(x)
        y = baselines.sampled_dcnv3(
            self.input_proj(x), self.offset(near), self.mask(near), groups=self.groups
        )
        return self.output_proj(y)


class Layer(Rewritten):
    """A layer of UniConvNet's aggregator."""

    def forward(self, known: Tensor, part: Tensor) -> Tensor:
        known = self.norm(known)
        context = self.context(known)
        part = self.part_conv(part) + self.context_proj(context)
        return torch.cat([part, self.product_proj(context * self.value(known))], dim=1)


class Aggregator(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        known, *parts = self.norm(x).split(self.parts, dim=1)
        for layer, part in zip(self.layers, parts, strict=True):
            known = layer(known, part)
        return known


class UniConvNetTraining(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        x = x + self.drop_path(self.gamma_rfa.view(1, -1, 1, 1) * self.rfa(x))
        x = x.permute(0, 2, 3, 1)
        x = x + self.drop_path(self.gamma_dcn * self.dcn(self.norm1(x)))
        x = x + self.drop_path(self.gamma_mlp * self.mlp(self.norm2(x)))
        return x.permute(0, 3, 1, 2)


class UniConvNetMerged(Rewritten):
    def forward(self, x: Tensor) -> Tensor:
        x = (x + self.rfa(x)).permute(0, 2, 3, 1)
        x = x + self.dcn(self.norm1(x))
        x = x + self.mlp(self.norm2(x))
        return x.permute(0, 3, 1, 2)


class DensePeripheral(Rewritten):
    """The expanded kernel in a stock convolution; what the embedding adds in its cheap form."""

    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        sizes = torch.tensor(self.grid, device=x.device)
        kernel = self.weight.repeat_interleave(sizes, 1).repeat_interleave(sizes, 2)
        y = baselines.convolution(x, kernel.unsqueeze(1))
        if self.bias is not None:
            y = y + self.bias[:, None, None]
        if pos_embed is not None and self.pos_mode == "valid":
            return y + position_map(kernel, pos_embed, *x.shape[2:])
        if pos_embed is not None:
            return y + (kernel * pos_embed).sum((1, 2))[:, None, None]
        return y


class Partial(Rewritten):
    def forward(self, x: Tensor, pos_embed: Tensor | None = None) -> Tensor:
        mixed = self.mixer(x[:, : self.channels], pos_embed)
        return torch.cat([mixed, x[:, self.channels :]], dim=1)


SWAPS: dict[type, Callable[[nn.Module], nn.Module]] = {
    DepthwiseConv2d: conv2d,
    PointwiseConv2d: conv2d,
    PointwiseLinear: linear,
    ScaledLinear: PlainScaledLinear,
    DepthwiseConv2dLast: Conv2dLast,
    DilatedReparamBlock: Branches,
    timm.layers.LayerNorm2d: LayerNorm2d,
    timm.layers.SEModule: SE,
    GlobalResponseNorm: GRN,
    UniRepLKNetBlock: UniRepLKNetTraining,
    FusedUniRepLKNetBlock: UniRepLKNetMerged,
    LSConv: SmallKernelLSConv,
    FusedLSConv: MergedLSConv,
    BiasedAttention: Attention,
    DCNv3: SampledDCNv3,
    AggregatorLayer: Layer,
    ReceptiveFieldAggregator: Aggregator,
    UniConvNetBlock: UniConvNetTraining,
    FusedUniConvNetBlock: UniConvNetMerged,
    PeripheralConv2d: DensePeripheral,
    PartialMixer: Partial,
}
