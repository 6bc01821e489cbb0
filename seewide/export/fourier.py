r"""Large depthwise kernels as the graph that a runtime computes fastest.

A depthwise convolution with a kernel of 31 to 101 taps a side costs most runtimes many times what
it costs here. As a discrete Fourier transform written as matrix products it costs them little:

    y = inverse(DFT(x) * S) + bias,    P = H + K // 2 rows and Q = (W + K // 2) // 2 + 1 columns

with real arithmetic in four products: columns of the real input (W x 2Q), rows of its complex
result (2P x 2H), the product with the kernel's spectrum S, rows back (2H x 2P) and columns back
(2Q x W). So many points suffice: what wraps around meets only outputs that are cut away. It takes
C (4 H W Q + 8 P H Q) multiply-adds instead of C H W K^2, and C x 2 x P x Q floats for S. The height
and width of the map are fixed.

ONNX Runtime computes the outputs near the border one by one where the padding is part of the
convolution and the kernel larger than about 25; zeros put around the map by Concat avoid that (a
Pad is put back into the convolution when the file is loaded).

Legend: N batch, C channels, H x W map, K x K kernel.
"""

from __future__ import annotations

import copy
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.errors import unknown
from seewide.layers.depthwise import DepthwiseConv2d

RUNTIMES = ("onnxruntime", "openvino", "web", "auto")
FORMS = ("plain", "concat", "fourier")


class ConcatPadded(nn.Module):
    """A depthwise convolution whose padding is zeros joined to the map.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, conv: nn.Conv2d):
        super().__init__()
        self.weight, self.bias = conv.weight, conv.bias

    def forward(self, x: Tensor) -> Tensor:
        ph, pw = self.weight.shape[2] // 2, self.weight.shape[3] // 2
        if ph:
            rows = x.new_zeros(x.shape[0], x.shape[1], ph, x.shape[3])
            x = torch.cat([rows, x, rows], 2)
        if pw:
            columns = x.new_zeros(x.shape[0], x.shape[1], x.shape[2], pw)
            x = torch.cat([columns, x, columns], 3)
        return F.conv2d(x, self.weight, self.bias, groups=self.weight.shape[0])


class FourierDepthwise(nn.Module):
    """A depthwise convolution on maps of one size, as matrix products.

    Args:
        weight: (C, 1, kh, kw), odd.
        bias: (C,) or None.
        H, W: of the map.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, H: int, W: int):
        super().__init__()
        kernel = weight.detach()[:, 0].double()
        # Taps farther than the map is long meet no pixel.
        kh, kw = kernel.shape[1] // 2, kernel.shape[2] // 2
        rh, rw = min(kh, H - 1), min(kw, W - 1)
        kernel = kernel[:, kh - rh : kh + rh + 1, kw - rw : kw + rw + 1]
        P, L = H + rh, W + rw
        Q = L // 2 + 1
        placed = kernel.new_zeros(kernel.shape[0], P, L)
        placed[:, : 2 * rh + 1, : 2 * rw + 1] = kernel
        placed = placed.roll((-rh, -rw), (1, 2))
        spectrum = torch.fft.rfft2(placed).conj()  # a correlation, not a convolution

        def angles(rows: int, columns: int, points: int) -> Tensor:
            product = torch.arange(rows)[:, None] * torch.arange(columns) % points
            return 2 * math.pi * product.double() / points

        column = angles(W, Q, L)
        row = angles(P, H, P)
        weights = torch.full((Q,), 2.0, dtype=torch.float64)
        weights[0] = 1
        if L % 2 == 0:
            weights[-1] = 1
        back = angles(Q, W, L)
        cos, sin = row.cos(), row.sin()
        constants = {
            "columns": torch.cat([column.cos(), -column.sin()], 1),
            "rows": torch.cat([torch.cat([cos, sin], 1), torch.cat([-sin, cos], 1)], 0),
            "rows_back": torch.cat([torch.cat([cos.t(), -sin.t()], 1),
                                    torch.cat([sin.t(), cos.t()], 1)], 0) / P,
            "columns_back": torch.cat([weights[:, None] * back.cos(),
                                       -weights[:, None] * back.sin()], 0) / L,
            "real": spectrum.real.contiguous(),
            "imaginary": spectrum.imag.contiguous(),
        }  # fmt: skip
        for name, value in constants.items():
            self.register_buffer(name, value.to(weight.dtype))
        self.bias = None if bias is None else nn.Parameter(bias.detach()[:, None, None].clone())

    columns: Tensor
    rows: Tensor
    rows_back: Tensor
    columns_back: Tensor
    real: Tensor
    imaginary: Tensor

    def forward(self, x: Tensor) -> Tensor:
        re, im = torch.matmul(x, self.columns).chunk(2, dim=3)
        re, im = torch.matmul(self.rows, torch.cat([re, im], 2)).chunk(2, dim=2)
        product = torch.cat(
            [re * self.real - im * self.imaginary, re * self.imaginary + im * self.real], 2
        )
        re, im = torch.matmul(self.rows_back, product).chunk(2, dim=2)
        y = torch.matmul(torch.cat([re, im], 3), self.columns_back)
        return y if self.bias is None else y + self.bias


@dataclass(frozen=True)
class Choice:
    """What was chosen for one kind of layer.

    Attributes:
        layers: how many layers are of this kind.
        channels, kernel, size: C, (kh, kw) and (H, W).
        form: of FORMS.
        prices: CPU milliseconds of each form that was measured; empty for the fixed rules.
    """

    layers: int
    channels: int
    kernel: tuple[int, int]
    size: tuple[int, int]
    form: str
    prices: dict[str, float]

    def __str__(self) -> str:
        kernel, size = ("x".join(map(str, pair)) for pair in (self.kernel, self.size))
        prices = ", ".join(f"{form} {price:.2f} ms" for form, price in self.prices.items())
        return f"{self.layers} x {self.channels} channels, {kernel} on {size}: {self.form}" + (
            f" ({prices})" if prices else ""
        )


def rewrite(
    model: nn.Module, example: Tensor, for_runtime: str, free_size: bool = False
) -> tuple[nn.Module, list[Choice]]:
    """A copy of a fused model with its large depthwise kernels as the runtime likes them.

    Args:
        example: (N, C, H, W): decides the sizes of all maps.
        for_runtime: one of RUNTIMES. The first three follow measured rules; "auto" times each
            distinct layer in ONNX Runtime on this machine.
        free_size: the size of the input is free, which rules out the Fourier transform.

    Raises:
        InputError: an unknown runtime.
    """
    if for_runtime not in RUNTIMES:
        raise unknown("runtime", for_runtime, RUNTIMES)
    model = copy.deepcopy(model)
    sizes = _map_sizes(model, example)
    kinds: dict[tuple, list[str]] = {}
    for name, size in sizes.items():
        conv = cast(nn.Conv2d, model.get_submodule(name))
        kinds.setdefault((conv.out_channels, tuple(conv.kernel_size), size), []).append(name)
    choices = []
    for (channels, kernel, size), names in kinds.items():
        prices: dict[str, float] = {}
        if for_runtime == "auto":
            prices = _prices(cast(nn.Conv2d, model.get_submodule(names[0])), size, free_size)
            form = min(prices, key=prices.__getitem__)
        else:
            form = _rule(for_runtime, max(kernel), free_size)
        for name in names:
            parent, _, key = name.rpartition(".")
            conv = cast(nn.Conv2d, model.get_submodule(name))
            setattr(model.get_submodule(parent), key, _MAKE[form](conv, size))
        choices.append(Choice(len(names), channels, kernel, size, form, prices))
    return model, choices


def _rule(runtime: str, K: int, free_size: bool) -> str:
    """Measured on one core with AVX-512, C = 64, 56 x 56; see docs/log.md for the prices."""
    if runtime == "onnxruntime":
        if K < 13:
            return "plain"
        return "concat" if K < 27 or free_size else "fourier"
    if runtime == "openvino":  # it dislikes zeros by Concat
        return "plain" if K < 27 or free_size else "fourier"
    return "plain" if K < 13 or free_size else "fourier"


_MAKE: dict[str, Callable[[nn.Conv2d, tuple[int, int]], nn.Module]] = {
    "plain": lambda conv, size: conv,
    "concat": lambda conv, size: ConcatPadded(conv),
    "fourier": lambda conv, size: FourierDepthwise(conv.weight, conv.bias, *size),
}


def _map_sizes(model: nn.Module, example: Tensor) -> dict[str, tuple[int, int]]:
    """Name -> (H, W) of each depthwise layer of more than 7 taps that can be rewritten."""
    found: dict[str, tuple[int, int]] = {}
    handles = []
    for name, module in model.named_modules():
        if type(module) is not DepthwiseConv2d or module.dilation != (1, 1) or not name:
            continue
        if max(module.kernel_size) <= 7:
            continue

        def remember(module: nn.Module, args: tuple, name: str = name) -> None:
            found[name] = (args[0].shape[2], args[0].shape[3])

        handles.append(module.register_forward_pre_hook(remember))
    try:
        with torch.no_grad():
            model(example[:1])
    finally:
        for handle in handles:
            handle.remove()
    return found


def _prices(conv: nn.Conv2d, size: tuple[int, int], free_size: bool) -> dict[str, float]:
    """CPU milliseconds of each form of one layer, batch 1, in ONNX Runtime."""
    from seewide.export.common import milliseconds, quiet
    from seewide.export.onnx import INPUT, open_session, runner

    x = torch.randn(2, conv.out_channels, *size, generator=torch.Generator().manual_seed(0))
    prices = {}
    for form in FORMS[:2] if free_size else FORMS:
        layer = nn.Sequential(_MAKE[form](conv, size)).eval()
        with tempfile.TemporaryDirectory() as folder, quiet(), torch.no_grad():
            path = Path(folder) / "layer.onnx"
            torch.onnx.export(
                layer, (x,), dynamo=True, verbose=False, input_names=[INPUT],
                dynamic_shapes=({0: torch.export.Dim("batch")},),
            ).save(str(path), external_data=False)  # fmt: skip
            prices[form] = milliseconds(runner(open_session(path, threads=1)), x[:1])
    return prices
