"""Modulated deformable aggregation, DCNv3.

    y[n, i, j, g] = sum over k of m[n, i, j, g, k] * x[n, g](p_k)

    p_k = stride * (j, i) + offset_scale * (dilation * t_k + offset[n, i, j, g, k])

x[n, g](p) is the bilinear interpolation at the point p = (column, row) of the channels of group g,
with x zero outside the map, t_k the k-th tap of a square grid around (0, 0), and m the mask, or its
softmax over k. InternImage (arXiv 2211.05778, section 3.1, equation 2) has the softmax;
UniConvNet (2508.09000, section 3) goes without it.

As in the authors' code, taps count columns outside and rows inside (t_1 is one row below t_0), an
offset is (column, row) in pixels, and "same" padding is implied: with stride 1 as many outputs as
inputs. Where a point falls on a pixel, as all do at zero offsets, the gradient of the offset is
that towards higher coordinates.

Legend: N batch, H x W map, C channels in G groups of D, K = kernel_size ** 2 taps.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError
from ..kernels import triton
from ..kernels._plain import in_transform, needs_plain_operators
from ..kernels.cpu import deformable as cpu
from ._dispatch import Backend, Operator, autocasts, reference_backend, run_without_autocast


def dcnv3(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int = 3,
    groups: int = 1,
    offset_scale: float = 1.0,
    stride: int = 1,
    dilation: int = 1,
    softmax: bool = False,
) -> Tensor:
    """Weighted sum, per group of channels, of `kernel_size ** 2` points that the input chooses.

    Args:
        x: (N, H, W, C), floating point.
        offset: (N, H', W', G * K * 2), added to the position of each tap, (column, row) in pixels.
        mask: (N, H', W', G * K), the weight of each tap.
        kernel_size: odd side of the grid of taps.
        groups: G; each has its own offsets and mask.
        offset_scale: stretches the grid and the offsets.
        stride: distance between outputs in pixels of `x`; H' = ceil(H / stride).
        dilation: distance between taps in pixels.
        softmax: normalize the mask over the taps of a group.

    Returns:
        (N, H', W', C), of the dtype of `x` (of the autocast dtype under autocast). Coordinates
        and sums are float32 at least.

    Raises:
        InputError: shapes, dtypes or numbers that do not fit, or a forced backend that
            cannot run.

    Example:
        >>> x, G, K = torch.rand(2, 14, 20, 32), 4, 9
        >>> offset, mask = torch.rand(2, 14, 20, G * K * 2), torch.rand(2, 14, 20, G * K)
        >>> dcnv3(x, offset, mask, groups=G).shape
        torch.Size([2, 14, 20, 32])
    """
    if torch.jit.is_scripting():  # TorchScript does not compile the dispatch
        return _sample_maps(
            x, offset, mask, kernel_size, groups, offset_scale, stride, dilation, softmax
        )
    else:
        tensors = (x, offset, mask)
        if has_torch_function(tensors):  # fx proxies: one node in the traced graph
            return handle_torch_function(
                dcnv3,
                tensors,
                *tensors,
                kernel_size=kernel_size,
                groups=groups,
                offset_scale=offset_scale,
                stride=stride,
                dilation=dilation,
                softmax=softmax,
            )
        if not torch.jit.is_tracing():  # a trace would record comparisons of sizes
            _check(x, offset, mask, kernel_size, groups, stride, dilation)
        return run_without_autocast(
            _operator, *tensors, kernel_size, groups, offset_scale, stride, dilation, softmax
        )


def dcnv3_reference(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int = 3,
    groups: int = 1,
    offset_scale: float = 1.0,
    stride: int = 1,
    dilation: int = 1,
    softmax: bool = False,
) -> Tensor:
    """The definition: bilinear interpolation between the four neighbours of each point. Slow."""
    N, H, W, C = x.shape
    column, row = _points(offset, kernel_size, groups, offset_scale, stride, dilation)
    x_NHWGD = x.to(column.dtype).reshape(N, H, W, groups, C // groups)
    m = mask.to(column.dtype).reshape(column.shape)
    m = m.softmax(-1) if softmax else m
    n = torch.arange(N, device=x.device).reshape(-1, 1, 1, 1, 1)
    g = torch.arange(groups, device=x.device).reshape(-1, 1)
    left, top = column.floor(), row.floor()
    y: Any = 0.0
    for i, near_i in ((top, 1 - (row - top)), (top + 1, row - top)):
        for j, near_j in ((left, 1 - (column - left)), (left + 1, column - left)):
            inside = (i >= 0) & (i < H) & (j >= 0) & (j < W)
            i_safe, j_safe = i.clamp(0, H - 1).long(), j.clamp(0, W - 1).long()
            weight = torch.where(inside, m * near_i * near_j, 0.0)
            y = y + (weight[..., None] * x_NHWGD[n, i_safe, j_safe, g]).sum(-2)
    return y.reshape(*offset.shape[:3], C).to(x.dtype)


def _points(
    offset: Tensor,
    kernel_size: int,
    groups: int,
    offset_scale: float,
    stride: int,
    dilation: int,
) -> tuple[Tensor, Tensor]:
    """Column and row (N, H', W', G, K) of every sampled point, in pixels, float32 at least."""
    N, H, W, _ = offset.shape
    dtype = torch.promote_types(offset.dtype, torch.float32)
    tap = dilation * (torch.arange(kernel_size, device=offset.device) - kernel_size // 2)
    offset = offset.to(dtype).reshape(N, H, W, groups, kernel_size * kernel_size, 2)
    pixels = (stride * torch.arange(W, device=offset.device)).reshape(1, 1, W, 1, 1)
    lines = (stride * torch.arange(H, device=offset.device)).reshape(1, H, 1, 1, 1)
    column = pixels + offset_scale * (tap.repeat_interleave(kernel_size) + offset[..., 0])
    row = lines + offset_scale * (tap.repeat(kernel_size) + offset[..., 1])
    return column, row


def _sample_maps(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int,
    groups: int,
    offset_scale: float,
    stride: int,
    dilation: int,
    softmax: bool,
) -> Tensor:
    """With grid_sample over N * G maps of D channels: supported by every exporter."""
    N, H, W, C = x.shape
    Ho, Wo, K = offset.shape[1], offset.shape[2], kernel_size * kernel_size
    column, row = _points(offset, kernel_size, groups, offset_scale, stride, dilation)
    x_maps = x.to(column.dtype).reshape(N, H * W, groups, C // groups).permute(0, 2, 3, 1)
    x_maps = x_maps.reshape(N * groups, C // groups, H, W)
    # grid_sample counts from -1 at the left edge of the first pixel to 1 at the right of the last
    grid = torch.stack([(2 * column + 1) / W - 1, (2 * row + 1) / H - 1], dim=-1)
    grid = grid.transpose(2, 3).transpose(1, 2).reshape(N * groups, Ho * Wo, K, 2)
    m = mask.to(column.dtype).reshape(N, Ho * Wo, groups, K).transpose(1, 2)
    m = m.softmax(-1) if softmax else m
    if torch.jit.is_scripting():
        taps = F.grid_sample(
            x_maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False
        )
    else:
        taps = _grid_sample(x_maps, grid)
    y = (taps * m.reshape(N * groups, 1, Ho * Wo, K)).sum(-1)
    return y.reshape(N, C, Ho * Wo).transpose(1, 2).reshape(N, Ho, Wo, C).to(x.dtype)


def _grid_sample(x: Tensor, grid: Tensor) -> Tensor:
    """`F.grid_sample` of (M, D, H, W) at (M, P, K, 2); in eager mode with second derivatives."""
    trains = torch.is_grad_enabled() and (x.requires_grad or grid.requires_grad)
    if trains and not torch.compiler.is_compiling() and needs_plain_operators() is None:
        return _GridSample.apply(x, grid)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


class _GridSample(torch.autograd.Function):
    """grid_sample, whose derivative in PyTorch cannot be differentiated again."""

    @staticmethod
    def forward(x: Tensor, grid: Tensor) -> Tensor:
        return F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, dy: Tensor):
        needed = list(ctx.needs_input_grad)
        if not torch.is_grad_enabled():
            backward = torch.ops.aten.grid_sampler_2d_backward
            found = backward(dy, *ctx.saved_tensors, 0, 0, False, needed)  # bilinear, zeros
            return tuple(g if need else None for g, need in zip(found, needed, strict=True))
        inputs = [t for t, need in zip(ctx.saved_tensors, needed, strict=True) if need]
        found = iter(
            torch.autograd.grad(_bilinear(*ctx.saved_tensors), inputs, dy, create_graph=True)
        )
        return tuple(next(found) if need else None for need in needed)


def _bilinear(x: Tensor, grid: Tensor) -> Tensor:
    """grid_sample in operators that can be differentiated any number of times."""
    (M, D, H, W), points = x.shape, grid.shape[1] * grid.shape[2]
    column, row = ((grid + 1) * grid.new_tensor([W, H]) / 2 - 0.5).unbind(-1)
    left, top = column.floor(), row.floor()
    y: Any = 0.0
    for i, near_i in ((top, 1 - (row - top)), (top + 1, row - top)):
        for j, near_j in ((left, 1 - (column - left)), (left + 1, column - left)):
            inside = (i >= 0) & (i < H) & (j >= 0) & (j < W)
            index = i.clamp(0, H - 1).long() * W + j.clamp(0, W - 1).long()
            index = index.reshape(M, 1, points).expand(-1, D, -1)
            pixels = x.flatten(2).gather(2, index).reshape(M, D, *column.shape[1:])
            y = y + pixels * torch.where(inside, near_i * near_j, 0.0).unsqueeze(1)
    return y


def _on_torch(*args) -> Tensor:
    if in_transform():  # grid_sample has no forward-mode and no second derivatives
        return dcnv3_reference(*args)
    return _sample_maps(*args)


def _on_cpu(*args: Any) -> Tensor:
    return cpu.dcnv3(*args, dcnv3_reference)  # type: ignore[call-arg]


def _triton_cannot(x: Tensor, *rest) -> str | None:
    reason = triton.cannot(x)
    if reason is None:
        from ..kernels.triton import deformable

        reason = deformable.cannot(x, *rest)
    return reason


def _on_triton(*args) -> Tensor:
    from ..kernels.triton import deformable

    return deformable.dcnv3(*args)


_operator = Operator(
    "dcnv3",
    Backend("cpu", _on_cpu, cpu.cannot, plan=lambda *args: "torch.nn.functional.embedding_bag"),
    Backend("torch", _on_torch, plan=lambda *args: "torch.nn.functional.grid_sample"),
    Backend("triton", _on_triton, _triton_cannot, triton.prefer, triton.slower),
    reference_backend(dcnv3_reference),
)


def _check(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int,
    groups: int,
    stride: int,
    dilation: int,
) -> None:
    if x.ndim != 4:
        raise InputError(f"x must be (N, H, W, C), got shape {tuple(x.shape)}")
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise InputError(f"kernel_size must be odd, got {kernel_size=}")
    for name, number in (("groups", groups), ("stride", stride), ("dilation", dilation)):
        if number < 1:
            raise InputError(f"{name} must be at least 1, got {number}")
    N, H, W, C = x.shape
    if C % groups:
        raise InputError(f"the channels of x must divide into groups, got {C=} and {groups=}")
    taps = groups * kernel_size**2
    for name, tensor, width in (("offset", offset, 2 * taps), ("mask", mask, taps)):
        want = (N, (H - 1) // stride + 1, (W - 1) // stride + 1, width)
        if tuple(tensor.shape) != want:
            raise InputError(
                f"{name} must be {want} for x of {tuple(x.shape)}, {groups=}, {kernel_size=} and "
                f"{stride=}, got shape {tuple(tensor.shape)}"
            )
    if not x.is_floating_point():
        raise InputError(f"x must be floating point, got {x.dtype}")
    if not autocasts(x.device.type):
        for name, tensor in (("offset", offset), ("mask", mask)):
            if tensor.dtype != x.dtype:
                raise InputError(f"x is {x.dtype} and {name} is {tensor.dtype}; they must agree")
