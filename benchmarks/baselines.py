"""The same results by other people's formulations: stock torch, torchvision, FFT, and the authors'.

Written from what the formulations are, not from anybody's code. Legend as in `seewide.ops`.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import deform_conv2d


def convolution(x: Tensor, weight: Tensor, dilation: int = 1) -> Tensor:
    """Depthwise, as every model file writes it."""
    kh, kw = weight.shape[2:]
    padding = (kh // 2 * dilation, kw // 2 * dilation)
    return F.conv2d(x, weight, padding=padding, dilation=dilation, groups=x.shape[1])


def fft_convolution(x: Tensor, weight: Tensor) -> Tensor:
    """Depthwise, through the Fourier transform; its cost hardly depends on the kernel."""
    (H, W), (kh, kw) = x.shape[2:], weight.shape[2:]
    size = (_smooth(H + kh - 1), _smooth(W + kw - 1))
    spectrum = torch.fft.rfft2(x, size) * torch.fft.rfft2(weight[:, 0].flip(1, 2), size)
    y = torch.fft.irfft2(spectrum, size)
    return y[..., kh // 2 : kh // 2 + H, kw // 2 : kw // 2 + W]


def _smooth(size: int) -> int:
    """The next number without prime factors above 5, which a Fourier transform likes."""
    while True:
        rest = size
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return size
        size += 1


def unfolded_aggregation(x: Tensor, weight: Tensor) -> Tensor:
    """SKA over `unfold`: the neighbours of every pixel laid out."""
    (N, C, H, W), (G, taps) = x.shape, weight.shape[1:3]
    k = round(taps**0.5)
    neighbours = F.unfold(x, k, padding=k // 2).view(N, C // G, G, taps, H, W)
    return (neighbours * weight[:, None]).sum(3).view(N, C, H, W)


def sliced_aggregation(x: Tensor, weight: Tensor) -> Tensor:
    """SKA as a sum of nine slices of the padded input, each weighed."""
    (_, C, H, W), (G, taps) = x.shape, weight.shape[1:3]
    k = round(taps**0.5)
    x_padded = F.pad(x, [k // 2] * 4).unflatten(1, (C // G, G))
    y = 0
    for tap in range(taps):
        u, v = divmod(tap, k)
        y = y + x_padded[..., u : u + H, v : v + W] * weight[:, None, :, tap]
    return y.flatten(1, 2)


def sampled_dcnv3(x: Tensor, offset: Tensor, mask: Tensor, groups: int) -> Tensor:
    """DCNv3 of 3 x 3 points without softmax, over `grid_sample`; NHWC, as UniConvNet's Python form.

    Coordinates are of the padded map, normalized to 0..1, as InternImage introduced them.
    """
    N, H, W, C = x.shape
    x_padded = F.pad(x, (0, 0, 1, 1, 1, 1))
    size = x.new_tensor([W + 2, H + 2])
    rows, columns = torch.meshgrid(
        torch.arange(H, device=x.device), torch.arange(W, device=x.device), indexing="ij"
    )
    center = torch.stack([columns, rows], -1).to(x.dtype) + 1.5
    step = torch.arange(-1, 2, device=x.device)
    taps = torch.stack(torch.meshgrid(step, step, indexing="ij"), -1).reshape(1, 9, 2)
    points = (center.reshape(1, H * W, 1, 1, 2) + taps) / size
    points = points + offset.reshape(N, H * W, groups, 9, 2) / size
    grid = (2 * points - 1).transpose(1, 2).flatten(0, 1)  # (N * G, H * W, 9, 2)
    maps = x_padded.reshape(N, (H + 2) * (W + 2), C).transpose(1, 2)
    maps = maps.reshape(N * groups, C // groups, H + 2, W + 2)
    sampled = F.grid_sample(maps, grid.to(x.dtype), padding_mode="zeros", align_corners=False)
    weights = mask.reshape(N, H * W, groups, 9).transpose(1, 2).reshape(N * groups, 1, H * W, 9)
    y = (sampled * weights).sum(-1).view(N, C, H * W)
    return y.transpose(1, 2).reshape(N, H, W, C).contiguous()


def torchvision_dcnv3(x: Tensor, offset: Tensor, mask: Tensor, groups: int) -> Tensor:
    """DCNv3 of 3 x 3 points over torchvision's DCNv2, whose depthwise weights are then all ones."""
    N, H, W, C = x.shape
    # Theirs are (row, column) with taps row by row; ours (column, row), column by column.
    offset = offset.reshape(N, H, W, groups, 3, 3, 2).flip(-1).permute(0, 3, 5, 4, 6, 1, 2)
    mask = mask.reshape(N, H, W, groups, 3, 3).permute(0, 3, 5, 4, 1, 2)
    y = deform_conv2d(
        x.permute(0, 3, 1, 2).contiguous(), offset.reshape(N, -1, H, W), x.new_ones(C, 1, 3, 3),
        padding=1, mask=mask.reshape(N, -1, H, W),
    )  # fmt: skip
    return y.permute(0, 2, 3, 1)


def eager_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """Layer norm over the channels of (N, C, H, W), by hand, as ConvNeXt's code introduced it."""
    mean = x.mean(1, keepdim=True)
    variance = (x - mean).pow(2).mean(1, keepdim=True)
    x = (x - mean) / torch.sqrt(variance + eps)
    return weight[:, None, None] * x + bias[:, None, None]


def permuted_layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float = 1e-6) -> Tensor:
    """The same with torch's kernel on a permuted view."""
    y = F.layer_norm(x.permute(0, 2, 3, 1), weight.shape, weight, bias, eps)
    return y.permute(0, 3, 1, 2)


def eager_grn(x: Tensor, weight: Tensor, bias: Tensor | None, eps: float = 1e-6) -> Tensor:
    """GRN of (N, H, W, C), as its paper's listing writes it."""
    energy = torch.norm(x, p=2, dim=(1, 2), keepdim=True)
    response = energy / (energy.mean(dim=-1, keepdim=True) + eps)
    y = (weight * response + 1) * x
    return y if bias is None else y + bias


def eager_se(x: Tensor, w1: Tensor, b1: Tensor, w2: Tensor, b2: Tensor) -> Tensor:
    """Squeeze and excitation of (N, C, H, W) with adaptive pooling and 1 x 1 convolutions."""
    gate = F.adaptive_avg_pool2d(x, 1)
    gate = torch.sigmoid(F.conv2d(F.relu(F.conv2d(gate, w1, b1)), w2, b2))
    return x * gate
