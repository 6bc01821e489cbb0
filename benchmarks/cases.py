"""What `python -m benchmarks ops` times: for each operator its shapes, and the baselines of each.

The first form of a case is the definition of right: the stock formulation, whose result all others
must equal. Legend: N batch, C channels, H x W map, K kernel size, G groups.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from timm.layers import LayerNorm2d, SEModule
from timm.layers.grn import GlobalResponseNorm as TimmGRN
from torch import Tensor, nn

from benchmarks import baselines
from benchmarks.shapes import KERNELS, TABLE_1, batch, unique
from seewide.layers import (
    DCNv3,
    DepthwiseConv2d,
    DilatedReparamBlock,
    GlobalResponseNorm,
    PeripheralConv2d,
)
from seewide.layers.ls_conv import FusedLSConv
from seewide.ops import (
    asymmetric_conv,
    dcnv3,
    depthwise_conv2d,
    peripheral_conv2d,
    sharing_grid,
    small_kernel_aggregation,
)
from seewide.ops._dispatch import Operator
from seewide.ops.peripheral import expand_weight

OURS, STOCK, STOCK_CL = "seewide", "torch NCHW", "torch channels_last"
FFT_FROM = 13  # below, the transform is of no interest


@dataclass(frozen=True)
class Form:
    """One way to compute a case's result from its tensors."""

    name: str
    call: Callable[..., Tensor]
    channels_last: bool = False  # layout of the maps among the tensors

    @property
    def ours(self) -> bool:
        return self.name.startswith(OURS)


@dataclass(frozen=True)
class Case:
    """One operator on one shape.

    `macs` counts the multiply-adds that the result needs: taps that meet the map, and of a
    peripheral kernel its cells. The first `maps` of the tensors have a layout.
    """

    operator: str
    where: str
    shape: tuple[int, ...]  # of the first tensor
    kernel: str
    macs: float
    tensors: tuple[tuple[int, ...], ...]
    forms: tuple[Form, ...]
    maps: int = 1
    arguments: tuple = ()  # of the operator, after its tensors, for `verdicts`
    scales: tuple[float, ...] = field(default=())  # standard deviation of each tensor

    @property
    def weights(self) -> int:
        """Numbers beside the map; on one shape, stock forms take time in proportion."""
        return sum(math.prod(shape) for shape in self.tensors[1:])

    def draw(self, device: str, dtype: torch.dtype) -> tuple[Tensor, ...]:
        """The tensors, the same in every run."""
        generator = torch.Generator().manual_seed(0)
        scales = self.scales or (1.0,) * len(self.tensors)
        return tuple(
            (scale * torch.randn(shape, generator=generator)).to(device, dtype)
            for shape, scale in zip(self.tensors, scales, strict=True)
        )

    def verdicts(self, tensors: tuple[Tensor, ...]) -> str:
        """Why each backend does not run here, or that it does."""
        operator = Operator.registry.get(self.operator)
        if operator is None:
            return ""
        if self.operator == "small_kernel_aggregation":
            tensors = (tensors[0], _sets(*tensors))
        rows = operator.table(*tensors, *self.arguments)
        return "; ".join(f"{name}: {verdict}" for name, verdict in rows)


def met(length: int, taps: int) -> int:
    """Pairs of an output and a tap that meet on a line of this length."""
    reach = taps // 2
    return sum(min(length - 1, i + reach) - max(0, i - reach) + 1 for i in range(length))


def _both(name: str, call: Callable[..., Tensor]) -> tuple[Form, Form]:
    plain = "torch NCHW" if name == "torch" else name
    return Form(plain, call), Form(f"{name} channels_last", call, channels_last=True)


def depthwise_case(where: str, shape: tuple[int, ...], kh: int, kw: int) -> Case:
    """A dense kernel; the Fourier transform takes part where it is large."""
    N, C, H, W = shape
    forms = [*_both("torch", baselines.convolution), *_both(OURS, depthwise_conv2d)]
    if max(kh, kw) >= FFT_FROM:
        forms.append(Form("torch.fft", baselines.fft_convolution))
    return Case(
        "depthwise_conv2d", where, shape, f"{kh}x{kw}", float(N * C * met(H, kh) * met(W, kw)),
        (shape, (C, 1, kh, kw)), tuple(forms), arguments=(None, 1),
        scales=(1.0, (kh * kw) ** -0.5),
    )  # fmt: skip


def depthwise(quick: bool) -> Iterator[Case]:
    """Square kernels: UniRepLKNet's Table 1, then every stage of the real networks."""
    if quick:
        for size in (7, 13, 31):
            yield depthwise_case("grid", (1, 64, 56, 56), size, size)
        yield depthwise_case("UniRepLKNet-T stage 3", (8, 320, 14, 14), 13, 13)
        return
    for shape in [(1, 64, 56, 56), (8, 384, 14, 14), *TABLE_1]:
        for size in KERNELS:
            yield depthwise_case("grid", shape, size, size)
    for where, layer, (C, H, W) in unique(DepthwiseConv2d, lambda layer: layer.kernel_size):
        yield depthwise_case(where, (batch(H), C, H, W), *layer.kernel_size)


def strips(quick: bool) -> Iterator[Case]:
    """SLaK's pair: K x 5 plus 5 x K."""
    for K, shape in [(51, (1, 124, 56, 56)), (49, (1, 249, 28, 28)), (47, (8, 499, 14, 14))]:
        if quick and K != 49:
            continue
        N, C, H, W = shape

        def pair(op):
            return lambda x, tall, wide: op(x, tall) + op(x, wide)

        yield Case(
            "strips", "SLaK-T", shape, f"{K}x5 + 5x{K}",
            float(N * C * (met(H, K) * met(W, 5) + met(H, 5) * met(W, K))),
            (shape, (C, 1, K, 5), (C, 1, 5, K)),
            (*_both("torch", pair(baselines.convolution)), *_both(OURS, pair(depthwise_conv2d))),
            scales=(1.0, (5 * K) ** -0.5, (5 * K) ** -0.5),
        )  # fmt: skip


def dilated(quick: bool) -> Iterator[Case]:
    """The training form of UniRepLKNet's block: the large kernel and its dilated branches."""
    shapes = [(4, 80, 56, 56), (4, 160, 28, 28), (8, 320, 14, 14), (8, 640, 7, 7)]
    for shape in shapes[2:3] if quick else shapes:
        N, C, H, W = shape
        block = DilatedReparamBlock(C, 13, device="meta")
        convs = [block.large.conv, *(branch.conv for branch in block.small.values())]
        sizes, rates = zip(*((c.kernel_size[0], c.dilation[0]) for c in convs), strict=True)

        def summed(op, rates=rates):
            def call(x: Tensor, *weights: Tensor) -> Tensor:
                branches = zip(weights, rates, strict=True)
                return sum(op(x, weight, dilation=rate) for weight, rate in branches)

            return call

        yield Case(
            "dilated", "UniRepLKNet training", shape, f"13 and {len(sizes) - 1} branches",
            float(sum(size * size for size in sizes) * N * C * H * W),
            (shape, *((C, 1, size, size) for size in sizes)),
            (*_both("torch", summed(baselines.convolution)),
             *_both(OURS, summed(depthwise_conv2d))),
            scales=(1.0, *(1 / size for size in sizes)),
        )  # fmt: skip


def peripheral_case(where: str, shape: tuple[int, ...], grid: list[int]) -> Case:
    """Against the dense convolution of the expanded kernel, stock and ours."""
    (N, C, H, W), k, K = shape, len(grid), sum(grid)

    def dense(op):
        return lambda x, weight: op(x, expand_weight(weight, grid).unsqueeze(1))

    ours = lambda x, weight: peripheral_conv2d(x, weight, grid)  # noqa: E731
    return Case(
        "peripheral_conv2d", where, shape, f"{K} in {k}x{k} cells", float(k * k * N * C * H * W),
        (shape, (C, k, k)),
        (*_both("torch", dense(baselines.convolution)), *_both(OURS, ours),
         Form("seewide dense", dense(depthwise_conv2d)),
         Form("torch.fft", dense(baselines.fft_convolution))),
        arguments=(grid, None, None, "valid"), scales=(1.0, 1 / K),
    )  # fmt: skip


def peripheral(quick: bool) -> Iterator[Case]:
    """PeLK's kernels on (1, 64, 56, 56), and every stage of PeLK-T and PeLK-101-T."""
    for K, center in [(51, 5)] if quick else [(51, 5), (101, 7)]:
        yield peripheral_case("grid", (1, 64, 56, 56), sharing_grid(K, center))
    for where, layer, (C, H, W) in unique(PeripheralConv2d, lambda layer: tuple(layer.grid)):
        if not quick or where == "PeLK-T stage 2":
            yield peripheral_case(where, (batch(H), C, H, W), layer.grid)


def _sets(x: Tensor, weight: Tensor) -> Tensor:
    """The weights as LSNet's layers make them: (N, G * 9, H, W), seen as (N, G, 9, H, W)."""
    return weight.unflatten(1, (-1, 9))


def aggregation(quick: bool) -> Iterator[Case]:
    """SKA in LSNet-B."""
    for where, layer, (C, H, W) in unique(FusedLSConv):
        if quick and H != 14:
            continue
        N, G = batch(H), layer.sets

        def seen(op):
            return lambda x, weight: op(x, _sets(x, weight))

        yield Case(
            "small_kernel_aggregation", where, (N, C, H, W), "3", 9.0 * N * C * H * W,
            ((N, C, H, W), (N, G * 9, H, W)),
            (*_both("torch", seen(baselines.sliced_aggregation)),
             Form("torch unfold", seen(baselines.unfolded_aggregation)),
             *_both(OURS, seen(small_kernel_aggregation))),
            maps=2,
        )  # fmt: skip


def deformable(quick: bool) -> Iterator[Case]:
    """DCNv3 in UniConvNet-T: five multiply-adds per point and channel, four of them to read."""
    for where, layer, (H, W, C) in unique(DCNv3):
        if quick and H != 14:
            continue
        N, G = batch(H), layer.groups

        def grouped(op, G=G):
            return lambda x, offset, mask: op(x, offset, mask, groups=G)

        yield Case(
            "dcnv3", where, (N, H, W, C), "3", 5.0 * 9 * N * C * H * W,
            ((N, H, W, C), (N, H, W, G * 18), (N, H, W, G * 9)),
            (Form("torch grid_sample", grouped(baselines.sampled_dcnv3)),
             Form("torchvision deform_conv2d", grouped(baselines.torchvision_dcnv3)),
             Form(OURS, grouped(dcnv3))),
            maps=0, arguments=(3, G, 1.0, 1, 1, False), scales=(1.0, 0.7, 1.0),
        )  # fmt: skip


def _of(layer: nn.Module, *names: str) -> Callable[..., Tensor]:
    """The layer as a function of its input and of the parameters of these names.

    They are put in place by hand: `functional_call` takes as long as the layer itself.
    """
    places = [(layer.get_submodule(name.rpartition(".")[0]), name) for name in names]

    def call(x: Tensor, *parameters: Tensor) -> Tensor:
        for (module, name), parameter in zip(places, parameters, strict=True):
            module._parameters[name.rpartition(".")[2]] = parameter
        return layer(x)

    return call


def layer_norm(quick: bool) -> Iterator[Case]:
    """Layer norm over channels, as our networks have it, and by hand."""
    for where, _, (C, H, W) in unique(LayerNorm2d):
        if quick and H != 14:
            continue
        N, ours = batch(H), _of(LayerNorm2d(C), "weight", "bias")
        yield Case(
            "layer_norm", where, (N, C, H, W), "", 4.0 * N * C * H * W,
            ((N, C, H, W), (C,), (C,)),
            (*_both("torch", baselines.eager_layer_norm),
             *_both("torch F.layer_norm", baselines.permuted_layer_norm), *_both(OURS, ours)),
        )  # fmt: skip


def grn(quick: bool) -> Iterator[Case]:
    """Global response norm in UniRepLKNet-T."""
    for where, _, (H, W, C) in unique(GlobalResponseNorm):
        if quick and H != 14:
            continue
        N, ours = batch(H), _of(GlobalResponseNorm(C), "weight", "bias")
        flat = _of(TimmGRN(C), "weight", "bias")

        def timm(x: Tensor, weight: Tensor, bias: Tensor, layer=flat) -> Tensor:
            return layer(x, weight.flatten(), bias.flatten())

        yield Case(
            "grn", where, (N, H, W, C), "", 3.0 * N * C * H * W,
            ((N, H, W, C), (1, 1, 1, C), (1, 1, 1, C)),
            (Form("torch", baselines.eager_grn), Form("timm", timm), Form(OURS, ours)), maps=0,
        )  # fmt: skip


def squeeze_excite(quick: bool) -> Iterator[Case]:
    """Squeeze and excitation in UniRepLKNet-T and LSNet-B."""
    for where, _, (C, H, W) in unique(SEModule):
        if quick and H != 14:
            continue
        N, R = batch(H), C // 4
        names = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias")
        ours = _of(SEModule(C, rd_channels=R), *names)
        yield Case(
            "squeeze_excite", where, (N, C, H, W), "", float(N * C * (2 * H * W + 2 * R)),
            ((N, C, H, W), (R, C, 1, 1), (R,), (C, R, 1, 1), (C,)),
            (*_both("torch", baselines.eager_se), *_both(OURS, ours)),
            scales=(1.0, C**-0.5, 1.0, R**-0.5, 1.0),
        )  # fmt: skip


def asymmetric(quick: bool) -> Iterator[Case]:
    """A kernel per sample and channel, on one map, by size."""
    N, C, H, W = shape = (8, 256, 32, 32)
    for size in (7, 13) if quick else (7, 13, 17, 21, 31):
        forms = (Form(STOCK, grouped_by_sample), Form(OURS, asymmetric_conv))
        macs = float(N * C * met(H, size) * met(W, size))
        yield Case(
            "asymmetric_conv", "grid", shape, f"{size}x{size}", macs,
            (shape, (N, C, size, size)), forms,
            arguments=(None, None, "depthwise", "same", "none", None), scales=(1.0, 1 / size),
        )  # fmt: skip


def grouped_by_sample(x: Tensor, kernel: Tensor) -> Tensor:
    """One call of torch, with a group per sample and channel."""
    N, C, H, W = x.shape
    kh, kw = kernel.shape[2:]
    y = torch.nn.functional.conv2d(
        x.reshape(1, N * C, H, W), kernel.reshape(N * C, 1, kh, kw),
        padding=(kh // 2, kw // 2), groups=N * C,
    )  # fmt: skip
    return y.reshape(N, C, H, W)


OPERATORS: dict[str, Callable[[bool], Iterator[Case]]] = {
    "depthwise": depthwise,
    "strips": strips,
    "dilated": dilated,
    "peripheral": peripheral,
    "aggregation": aggregation,
    "asymmetric": asymmetric,
    "dcnv3": deformable,
    "layer_norm": layer_norm,
    "grn": grn,
    "squeeze_excite": squeeze_excite,
}
