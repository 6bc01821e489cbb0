"""What is measured of the operators: the shapes of the networks at the batches of training.

Legend: N batch, C channels, H x W map, K kernel.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks import rivals
from benchmarks.cases import FFT_FROM, met
from benchmarks.shapes import unique
from seewide.layers import DCNv3
from seewide.ops import dcnv3, depthwise_conv2d, small_kernel_aggregation, use_backend

HALF = (torch.bfloat16, torch.float32)
OURS, TORCH, TORCH_LAST = "seewide", "torch NCHW", "torch channels_last"
FORWARD, BY_INPUT, BY_WEIGHT, BACKWARD = (
    *("forward", "input gradient", "weight gradient", "all gradients"),
)
TABLE_1 = (3, 5, 7, 9, 13, 17, 21, 27, 31)  # K of UniRepLKNet's Table 1, and some between


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


def asked(op: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`op` by its Triton kernel on a GPU, also where it would not choose it by itself."""

    def call(x: Tensor, *args, **kwargs) -> Tensor:
        with use_backend("triton" if x.is_cuda else None):
            return op(x, *args, **kwargs)

    return call


def depthwise_case(
    section: str, where: str, shape: tuple[int, ...], K: int, dtype: torch.dtype,
    passes: tuple[str, ...] = (FORWARD, BY_INPUT, BY_WEIGHT),
) -> Case:  # fmt: skip
    N, C, H, W = shape
    forms = {
        OURS: Form(asked(depthwise_conv2d)),
        TORCH: Form(rivals.convolution),
        TORCH_LAST: Form(rivals.convolution, channels_last=True),
    }
    if K >= FFT_FROM and dtype == torch.float32:  # cuFFT takes halves of powers of two only
        forms["torch.fft"] = Form(rivals.fft_convolution, passes=(FORWARD,))
    macs = float(N * C * met(H, K) * met(W, K))
    drawn = lambda: (torch.randn(shape), torch.randn(C, 1, K, K) / K)  # noqa: E731
    return Case(section, where, shape, f"K={K}", dtype, passes, forms, drawn, macs)


def depthwise() -> Iterator[Case]:
    """UniRepLKNet's Table 1 shapes, then the networks'."""
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
        ("UniConvNet-T", (128, 192, 14, 14), 11),
        ("LSNet-B", (256, 64, 28, 28), 7),
        ("LSNet-B", (256, 192, 7, 7), 7),
        ("detection", (2, 128, 200, 336), 31),
        ("detection", (2, 36, 200, 336), 51),
        ("segmentation", (1, 48, 128, 512), 101),
    ]
    for dtype in HALF:
        for where, shape, K in shapes:
            yield depthwise_case("depthwise", where, shape, K, dtype)


def table_1() -> Iterator[Case]:
    """Time against K, as in UniRepLKNet's Table 1."""
    for dtype in (torch.float32, torch.bfloat16):
        for side in (16, 32, 64):
            for K in TABLE_1:
                shape = (64, 384, side, side)
                yield depthwise_case("table 1", "Table 1", shape, K, dtype, (FORWARD,))


def aggregation(authors: Path | None = None) -> Iterator[Case]:
    """SKA in LSNet-B; beside the authors' kernel if their checkout is given."""
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        for C, side in ((128, 28), (256, 14), (384, 7)):
            N, G, H, W = 256, C // 8, side, side
            forms = {
                OURS: Form(asked(small_kernel_aggregation)),
                "torch slices": Form(rivals.sliced_aggregation),
                "torch unfold": Form(rivals.unfolded_aggregation),
            }
            if authors is not None:
                forms["authors"] = Form(_authors_aggregation(authors))
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
    shapes = [("UniConvNet-A", (128, s, s, 32 * 56 // s), 8) for s in (56, 28, 14, 7)]
    for _, layer, (H, W, C) in unique(DCNv3):
        shapes.append(("UniConvNet-T", (128, H, W, C), C // layer.groups))
    for dtype in HALF:
        for where, shape, D in shapes:
            N, H, W, C = shape
            G = C // D
            forms = {
                name: Form(lambda x, o, m, op=op, G=G: op(x, o, m, groups=G))
                for name, op in (
                    (OURS, asked(dcnv3)),
                    ("torch grid_sample", rivals.sampled_dcnv3),
                    ("torchvision deform_conv2d", rivals.torchvision_dcnv3),
                )
            }
            drawn = lambda s=shape, G=G: (  # noqa: E731
                torch.randn(s), 0.7 * torch.randn(*s[:3], G * 18), torch.randn(*s[:3], G * 9)
            )  # fmt: skip
            passes, macs = (FORWARD, BACKWARD), 45.0 * N * C * H * W
            kernel = f"3, groups of {D}"
            yield Case("dcnv3", where, shape, kernel, dtype, passes, forms, drawn, macs)
