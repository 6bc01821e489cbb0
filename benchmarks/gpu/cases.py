"""What is measured of the operators: the shapes of the networks at the batches of training.

Legend: N batch, C channels, H x W map, K kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import baselines
from benchmarks.cases import FFT_FROM, met
from seewide.ops import (
    dcnv3,
    depthwise_conv2d,
    peripheral_conv2d,
    sharing_grid,
    small_kernel_aggregation,
    use_backend,
)
from seewide.ops.peripheral import expand_weight

HALF = (torch.bfloat16, torch.float32)
OURS, OURS_LAST = "seewide", "seewide channels_last"
TORCH, TORCH_LAST, COMPILED = "torch NCHW", "torch channels_last", "torch.compile"
PUBLISHED, AUTHORS = "the authors' algorithm", "the authors' code"
FORWARD, BY_INPUT, BY_WEIGHT, BACKWARD = (
    *("forward", "input gradient", "weight gradient", "all gradients"),
)
TABLE_1 = (3, 5, 9, 17, 21, 27)  # K on the curve of UniRepLKNet's Table 1 beside 7, 13 and 31


@dataclass(frozen=True)
class Form:
    """One way to compute the operator."""

    call: Callable[..., Tensor]
    channels_last: bool = False
    passes: tuple[str, ...] = (FORWARD, BY_INPUT, BY_WEIGHT, BACKWARD)


@dataclass(frozen=True)
class Case:
    """An operator on one shape. `bytes_` and `macs` are the least that a forward pass needs."""

    section: str
    where: str
    shape: tuple[int, ...]
    kernel: str
    dtype: torch.dtype
    passes: tuple[str, ...]
    forms: dict[str, Form]
    drawn: Callable[[], tuple[Tensor, ...]]
    macs: float

    def draw(self, device: str) -> tuple[Tensor, ...]:
        with torch.device(device):
            return tuple(t.to(self.dtype) for t in self.drawn())

    @property
    def title(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self.section} {'x'.join(map(str, self.shape))} {self.kernel} {dtype}"

    def forms_of(self, what: str) -> dict[str, Form]:
        """Those that are timed in this pass, ours first."""
        return {name: form for name, form in self.forms.items() if what in form.passes}


def asked(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` by its Triton kernel on a GPU, also where it would not choose it by itself."""

    def call(x: Tensor, *args, **kwargs) -> Tensor:
        with use_backend("triton" if x.is_cuda else None):
            return op(x, *args, **kwargs)

    return call


def compiled(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` under torch.compile, for the shapes of its first call."""
    made: list[Callable[..., Tensor]] = []

    def call(*args, **kwargs) -> Tensor:
        if not made:
            torch.compiler.reset()  # a function may have eight versions, over all cases
            made.append(torch.compile(op, dynamic=False))
        return made[0](*args, **kwargs)

    return call


def depthwise_case(
    section: str, where: str, shape: tuple[int, ...], K: int, dtype: torch.dtype,
    passes: tuple[str, ...] = (FORWARD, BY_INPUT, BY_WEIGHT),
) -> Case:  # fmt: skip
    N, C, H, W = shape
    forms = {
        OURS: Form(asked(depthwise_conv2d)),
        TORCH: Form(baselines.convolution),
        TORCH_LAST: Form(baselines.convolution, channels_last=True),
    }
    if K <= 9:  # which has a kernel for this layout
        last = Form(asked(depthwise_conv2d), channels_last=True, passes=(FORWARD, BY_INPUT))
        forms[OURS_LAST] = last
    if (where, H, K, dtype) == ("Table 1", 32, 31, torch.bfloat16):  # Inductor has none of its own
        forms[COMPILED] = Form(compiled(baselines.convolution), passes=(FORWARD,))
    if K >= FFT_FROM and dtype == torch.float32:  # cuFFT takes halves of powers of two only
        forms["torch.fft"] = Form(baselines.fft_convolution, passes=(FORWARD,))
    macs = float(N * C * met(H, K) * met(W, K))
    drawn = lambda: (torch.randn(shape), torch.randn(C, 1, K, K) / K)  # noqa: E731
    return Case(section, where, shape, f"K={K}", dtype, passes, forms, drawn, macs)


def depthwise() -> Iterator[Case]:
    """UniRepLKNet's Table 1 shapes in all passes, then the networks'.

    Those forward and, in bfloat16, by the weight: the input's gradient is the forward kernel's.
    """
    shapes = [
        *(("Table 1", (64, 384, side, side), K) for side in (32, 16, 64) for K in (31, 13, 7)),
        ("UniRepLKNet-T", (128, 160, 28, 28), 13),
        ("UniRepLKNet-T", (128, 320, 14, 14), 13),
        ("UniRepLKNet-T", (128, 640, 7, 7), 13),
        ("PeLK-T", (128, 36, 56, 56), 51),
        ("PeLK-T", (128, 72, 28, 28), 49),
        ("PeLK-T", (128, 144, 14, 14), 47),
        ("PeLK-B-101", (128, 48, 56, 56), 101),
        ("UniConvNet-T", (128, 16, 56, 56), 7),
        ("UniConvNet-T", (128, 32, 56, 56), 9),
        ("UniConvNet-T", (128, 48, 56, 56), 11),
        ("UniConvNet-T", (128, 64, 14, 14), 7),
        ("UniConvNet-T", (128, 128, 14, 14), 9),
        ("UniConvNet-T", (128, 192, 14, 14), 11),
        ("LSNet-B", (256, 64, 28, 28), 7),
        ("LSNet-B", (256, 128, 14, 14), 7),
        ("LSNet-B", (256, 192, 7, 7), 7),
        ("detection", (2, 128, 200, 336), 31),
        ("detection", (2, 36, 200, 336), 51),
        ("segmentation", (1, 48, 128, 512), 101),
    ]
    for dtype in HALF:
        for where, shape, K in shapes:
            passes = (FORWARD, BY_INPUT, BY_WEIGHT)
            if where != "Table 1":
                passes = (FORWARD, BY_WEIGHT) if dtype == torch.bfloat16 else (FORWARD,)
            yield depthwise_case("depthwise", where, shape, K, dtype, passes)


def table_1() -> Iterator[Case]:
    """Time against K, as in UniRepLKNet's Table 1; 7, 13 and 31 are among `depthwise`."""
    for dtype in (torch.float32, torch.bfloat16):
        for side in (16, 32, 64):
            for K in TABLE_1:
                shape = (64, 384, side, side)
                yield depthwise_case("table 1", "Table 1", shape, K, dtype, (FORWARD,))


def peripheral() -> Iterator[Case]:
    """PeLK's kernels with their shared weights, beside the dense convolution of the same."""
    shapes = [
        ("PeLK-T", (128, 36, 56, 56), 51, 5),
        ("PeLK-T", (128, 72, 28, 28), 49, 5),
        ("PeLK-T", (128, 144, 14, 14), 47, 5),
        ("PeLK-B-101", (128, 48, 56, 56), 101, 7),
    ]
    for dtype in HALF:
        for where, shape, K, center in shapes:
            (N, C, H, W), grid = shape, sharing_grid(K, center)
            k = len(grid)
            ours = asked(peripheral_conv2d)
            forms = {
                OURS: Form(lambda x, w, grid=grid, op=ours: op(x, w, grid)),
                "seewide, cells": Form(lambda x, w, grid=grid: _cells(x, w, grid)),
                "seewide, dense": Form(_expanding(asked(depthwise_conv2d), grid)),
                "torch, dense": Form(_expanding(baselines.convolution, grid)),
            }
            drawn = lambda s=shape, k=k, K=K: (  # noqa: E731
                torch.randn(s), torch.randn(s[1], k, k) / K
            )  # fmt: skip
            passes, macs = (FORWARD, BY_INPUT), float(N * C * H * W * k * (k + 1))
            yield Case("peripheral", where, shape, f"K={K}", dtype, passes, forms, drawn, macs)


def _cells(x: Tensor, weight: Tensor, grid: list[int]) -> Tensor:
    """The kernel that follows the grid, also where peripheral_conv2d chooses the dense one."""
    from seewide.kernels.triton.peripheral import peripheral_conv2d as by_cells

    return by_cells(x, weight, grid, None)


def _expanding(convolve: Callable[..., Tensor], grid: list[int]) -> Callable[..., Tensor]:
    """The dense form: every weight repeated over its cell, in the timed call too."""
    return lambda x, weight: convolve(x, expand_weight(weight, grid).unsqueeze(1))


def aggregation(authors: Path | None = None) -> Iterator[Case]:
    """SKA in LSNet-B, beside the authors' algorithm and, if their checkout is given, their code."""
    from benchmarks.gpu.authors import aggregation as published

    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for C, side in ((128, 28), (256, 14), (384, 7)):
            N, G, H, W = 256, C // 8, side, side
            forms = {
                OURS: Form(asked(small_kernel_aggregation)),
                "torch slices": Form(baselines.sliced_aggregation),
                "torch unfold": Form(baselines.unfolded_aggregation),
                PUBLISHED: Form(published),
            }
            if dtype == torch.bfloat16 and side == 28:
                forms[COMPILED] = Form(compiled(baselines.sliced_aggregation))
            if authors is not None:
                forms[AUTHORS] = Form(_authors_aggregation(authors))
            shape = (N, C, H, W)
            drawn = lambda s=shape, G=G: (  # noqa: E731
                torch.randn(s), torch.randn(s[0], G, 9, s[2], s[3])
            )  # fmt: skip
            passes, macs = (FORWARD, BACKWARD), 9.0 * N * C * H * W
            yield Case("aggregation", "LSNet-B", shape, "3", dtype, passes, forms, drawn, macs)


def _authors_aggregation(checkout: Path) -> Callable[..., Tensor]:
    """The class SKA of LSNet's repository, from a checkout of it (model/ska.py)."""
    import runpy

    op = runpy.run_path(str(checkout / "model" / "ska.py"))["SKA"]()
    return lambda x, weight: op(x, weight)


def deformable() -> Iterator[Case]:
    """DCNv3: UniConvNet-A's groups of 8 channels and UniConvNet-T's of 16."""
    shapes = [
        (where, (128, side, side, width * 56 // side), D)
        for where, width, D in (("UniConvNet-A", 32, 8), ("UniConvNet-T", 64, 16))
        for side in (56, 28, 14, 7)
    ]
    for dtype in HALF:
        for where, shape, D in shapes:
            N, H, W, C = shape
            G = C // D
            forms = {
                name: Form(lambda x, o, m, op=op, G=G: op(x, o, m, groups=G))
                for name, op in (
                    (OURS, asked(dcnv3)),
                    ("torch grid_sample", baselines.sampled_dcnv3),
                    ("torchvision deform_conv2d", baselines.torchvision_dcnv3),
                )
            }
            if (H, D, dtype) == (56, 16, torch.bfloat16):
                sampled = lambda x, o, m, G=G: baselines.sampled_dcnv3(x, o, m, groups=G)  # noqa: E731
                forms[COMPILED] = Form(compiled(sampled))
            drawn = lambda s=shape, G=G: (  # noqa: E731
                torch.randn(s), 0.7 * torch.randn(*s[:3], G * 18), torch.randn(*s[:3], G * 9)
            )  # fmt: skip
            passes, macs = (FORWARD, BACKWARD), 45.0 * N * C * H * W
            kernel = f"3, groups of {D}"
            yield Case("dcnv3", where, shape, kernel, dtype, passes, forms, drawn, macs)
