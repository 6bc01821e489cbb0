"""Peripheral convolution: a large depthwise kernel that shares its weights outside the centre.

PeLK (arXiv 2403.07589), section 3.2: as the resolution of human vision falls with the distance
from the centre, kernel weights are repeated in cells that grow outwards. With S the sharing grid
(equation 2; sizes of the cells along one axis, sum K) and cell(u) the cell of tap u,

    y[n, c, i, j] = bias[c] + sum over u, v of weight[c, cell(u), cell(v)]
                    * (x[n, c, i + u - K // 2, j + v - K // 2] + pos_embed[c, u, v])

for all u, v in 0 .. K - 1, with x zero outside the map. Equation 3, the kernel-wise positional
embedding, does not say what it adds to where the kernel leaves the map:

* `pos_mode="valid"` adds it to pixels only. Then each output gains a number that depends on where
  it lies, as the name promises: with K = 51 on 56 x 56, nearly everywhere is near a border.
* `pos_mode="constant"` adds it everywhere, as printed. Then each channel gains one number, the same
  for all outputs: a bias, which a following batch norm removes.

Legend: N batch, C channels, H x W map, K kernel size, k number of cells along an axis.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function

from ..errors import InputError
from ..kernels import triton
from ..kernels.cpu import peripheral as cpu
from ._dispatch import Backend, Operator, autocasts, reference_backend, run_without_autocast
from .depthwise import depthwise_conv2d

POS_MODES = ("valid", "constant")


def sharing_grid(kernel_size: int, center: int = 5, base: int = 2) -> list[int]:
    """Sizes of the cells along one axis, from one edge of the kernel to the other.

    Equation 2: `center` cells of 1, then base, base^2, ... outwards. The outermost cells take what
    is left so that the sum is `kernel_size`, which gives every grid that the paper prints; where
    that is less than half of their neighbours, they are combined with them.

    Args:
        kernel_size: K, odd.
        center: number of cells of 1 in the middle, odd.
        base: growth of the cells; 1 shares nothing.

    Raises:
        InputError: an even or too large size, or a base below 1.

    Example:
        >>> sharing_grid(31)
        [7, 4, 2, 1, 1, 1, 1, 1, 2, 4, 7]
    """
    if kernel_size < 1 or kernel_size % 2 == 0:
        raise InputError(f"kernel_size must be odd and positive, got {kernel_size=}")
    if center % 2 == 0 or not 1 <= center <= kernel_size:
        raise InputError(f"center must be odd, from 1 to {kernel_size=}, got {center=}")
    if base < 1:
        raise InputError(f"base must be at least 1, got {base=}")
    arm: list[int] = []
    left, size = (kernel_size - center) // 2, base
    while left >= size:
        arm.append(size)
        left, size = left - size, size * base
    if left and arm and 2 * left < arm[-1]:
        arm[-1] += left
    elif left:
        arm.append(left)
    return [*reversed(arm), *[1] * center, *arm]


def expand_weight(weight: Tensor, grid: list[int]) -> Tensor:
    """The K x K kernel: each weight repeated over its cell, (C, k, k) -> (C, K, K)."""
    if not torch.jit.is_scripting() and torch.jit.is_tracing():
        # Without an index tensor, which a trace would store as a constant, with its device.
        rows = torch.cat([weight[:, u : u + 1].expand(-1, s, -1) for u, s in enumerate(grid)], 1)
        return torch.cat([rows[..., v : v + 1].expand(-1, -1, s) for v, s in enumerate(grid)], 2)
    cells: list[int] = []
    for cell, size in enumerate(grid):
        for _ in range(size):
            cells.append(cell)
    index = torch.tensor(cells, device=weight.device)
    # Columns first: most copies are then contiguous rows (2.7 times faster on a CPU).
    return weight.index_select(2, index).index_select(1, index)


def peripheral_conv2d(
    x: Tensor,
    weight: Tensor,
    grid: list[int],
    bias: Tensor | None = None,
    pos_embed: Tensor | None = None,
    pos_mode: str = "valid",
) -> Tensor:
    """Depthwise convolution with shared peripheral weights, stride 1, same padding.

    Args:
        x: (N, C, H, W), floating point; contiguous or channels_last, as the result then is.
        weight: (C, k, k).
        grid: k cell sizes, sum K, odd; see `sharing_grid`.
        bias: (C,) or None.
        pos_embed: (C, K, K) or None.
        pos_mode: where `pos_embed` is added, "valid" or "constant"; see the top of this file.

    Returns:
        (N, C, H, W), of the dtype of `x` (of the autocast dtype under autocast).

    Raises:
        InputError: shapes, sizes or dtypes that do not fit, an unknown `pos_mode`, or a forced
            backend that cannot run.

    Example:
        >>> grid = sharing_grid(51)
        >>> peripheral_conv2d(torch.rand(2, 8, 14, 20), torch.rand(8, 13, 13), grid).shape
        torch.Size([2, 8, 14, 20])
    """
    if torch.jit.is_scripting():  # TorchScript does not compile the dispatch
        return _expanded(x, weight, grid, bias, pos_embed, pos_mode)
    else:
        tensors = _present(x, weight, bias, pos_embed)
        if has_torch_function(tensors):  # fx proxies: one node in the traced graph
            return handle_torch_function(
                peripheral_conv2d, tensors, x, weight, grid, bias, pos_embed, pos_mode
            )
        if not torch.jit.is_tracing():  # a trace would record comparisons of sizes
            _check(x, weight, grid, bias, pos_embed, pos_mode)
        return run_without_autocast(_operator, x, weight, grid, bias, pos_embed, pos_mode)


def peripheral_conv2d_reference(
    x: Tensor,
    weight: Tensor,
    grid: list[int],
    bias: Tensor | None = None,
    pos_embed: Tensor | None = None,
    pos_mode: str = "valid",
) -> Tensor:
    """The definition: the sum over taps of the shifted padded input times the weight. Slow."""
    (H, W), K = x.shape[2:], sum(grid)
    sizes = torch.tensor(grid, device=x.device)
    kernel = weight.repeat_interleave(sizes, dim=1).repeat_interleave(sizes, dim=2)
    padding = (K // 2,) * 4
    x_padded = F.pad(x, padding)
    embedded = F.pad(torch.ones_like(x), padding, value=0.0 if pos_mode == "valid" else 1.0)
    y = torch.zeros_like(x)
    for u in range(K):
        for v in range(K):
            pixels = x_padded[:, :, u : u + H, v : v + W]
            if pos_embed is not None:
                there = embedded[:, :, u : u + H, v : v + W]
                pixels = pixels + pos_embed[:, u, v, None, None] * there
            y = y + pixels * kernel[:, u, v, None, None]
    return y if bias is None else y + bias[:, None, None]


def position_map(kernel: Tensor, pos_embed: Tensor, H: int, W: int) -> Tensor:
    """What the embedding adds to each output under "valid": (C, K, K) twice -> (C, H, W).

    The sum of kernel * pos_embed over the taps that meet pixels, in float32 for half precision.
    Those taps are a range of rows and a range of columns, so it is two products with matrices of
    zeros and ones: about as many multiply-adds as a single 1 x K convolution per row of the kernel,
    once per batch.
    """
    wide = torch.float64 if kernel.dtype == torch.float64 else torch.float32
    product = kernel.to(wide) * pos_embed.to(wide)
    rows = _meets(H, kernel.shape[1], product)
    columns = _meets(W, kernel.shape[2], product)
    return rows @ product @ columns.t()


def _meets(size: int, taps: int, like: Tensor) -> Tensor:
    """(size, taps): 1 where a tap of the output at that position lies inside the map, else 0."""
    place = torch.arange(size, device=like.device)
    tap = torch.arange(taps, device=like.device) - taps // 2
    met = place.unsqueeze(1) + tap
    return ((met >= 0) & (met < size)).to(like.dtype)


def _expanded(
    x: Tensor,
    weight: Tensor,
    grid: list[int],
    bias: Tensor | None,
    pos_embed: Tensor | None,
    pos_mode: str,
) -> Tensor:
    """The dense convolution of the expanded kernel, by `depthwise_conv2d`."""
    kernel = expand_weight(weight, grid)
    if pos_embed is not None and pos_mode == "constant":
        bias = _shift(kernel, pos_embed, bias)
    y = depthwise_conv2d(x, kernel.unsqueeze(1), bias, 1)
    if pos_embed is not None and pos_mode == "valid":
        y = _placed(y, kernel, pos_embed)
    return y


def _in_cells(
    convolve: Callable[[Tensor, Tensor, list[int], Tensor | None], Tensor],
    x: Tensor,
    weight: Tensor,
    grid: list[int],
    bias: Tensor | None,
    pos_embed: Tensor | None,
    pos_mode: str,
) -> Tensor:
    """The convolution by cells with `convolve`; the embedding's part is dense, once per batch."""
    if pos_embed is not None and pos_mode == "constant":
        bias = _shift(expand_weight(weight, grid), pos_embed, bias)
    y = convolve(x, weight, grid, bias)
    if pos_embed is not None and pos_mode == "valid":
        y = _placed(y, expand_weight(weight, grid), pos_embed)
    return y


def _shift(kernel: Tensor, pos_embed: Tensor, bias: Tensor | None) -> Tensor:
    """The bias plus the contribution of the embedding, for pos_mode="constant"."""
    shift = (kernel * pos_embed).sum((1, 2))
    return shift if bias is None else bias + shift


def _placed(y: Tensor, kernel: Tensor, pos_embed: Tensor) -> Tensor:
    """The output plus the map of the embedding, for pos_mode="valid"."""
    return y + position_map(kernel, pos_embed, y.shape[2], y.shape[3]).to(y.dtype)


def _triton_cannot(x: Tensor, weight: Tensor, grid: list[int], *rest) -> str | None:
    reason = triton.cannot(x)
    if reason is None:
        from ..kernels.triton import peripheral

        reason = peripheral.cannot(x, weight, grid)
    return reason


def _on_triton(x: Tensor, weight: Tensor, grid: list[int], *rest) -> Tensor:
    from ..kernels.triton import peripheral

    if peripheral.plan(x, weight, grid) == "dense":
        return _expanded(x, weight, grid, *rest)
    return _in_cells(peripheral.peripheral_conv2d, x, weight, grid, *rest)


def _triton_plan(x: Tensor, weight: Tensor, grid: list[int], *rest) -> str:
    from ..kernels.triton import peripheral

    return peripheral.plan(x, weight, grid)


_operator = Operator(
    "peripheral_conv2d",
    Backend(
        "cpu",
        lambda *args: _in_cells(cpu.peripheral_conv2d, *args),
        lambda x, *args: cpu.cannot(x),
        lambda x, weight, grid, *args: cpu.prefer(x, grid),
        lambda x, weight, grid, *args: cpu.slower(x, grid),
        lambda x, weight, grid, *args: cpu.plan(grid),
    ),
    Backend("torch", _expanded, plan=lambda *args: "depthwise_conv2d of the expanded kernel"),
    Backend("triton", _on_triton, _triton_cannot, triton.prefer, triton.slower, _triton_plan),
    reference_backend(peripheral_conv2d_reference),
)


def _present(*tensors: Tensor | None) -> tuple[Tensor, ...]:
    return tuple(tensor for tensor in tensors if tensor is not None)


def _check(
    x: Tensor,
    weight: Tensor,
    grid: list[int],
    bias: Tensor | None,
    pos_embed: Tensor | None,
    pos_mode: str,
) -> None:
    if x.ndim != 4:
        raise InputError(f"x must be (N, C, H, W), got shape {tuple(x.shape)}")
    C, k, K = x.shape[1], len(grid), sum(grid)
    if k == 0 or min(grid) < 1 or K % 2 == 0:
        raise InputError(f"grid must be cell sizes of at least 1 with an odd sum, got {grid}")
    if weight.shape != (C, k, k):
        raise InputError(
            f"weight must be ({C}, {k}, {k}), for {C} channels and {k} cells, "
            f"got shape {tuple(weight.shape)}"
        )
    if bias is not None and bias.shape != (C,):
        raise InputError(f"bias must be ({C},), got shape {tuple(bias.shape)}")
    if pos_embed is not None and pos_embed.shape != (C, K, K):
        raise InputError(
            f"pos_embed must be ({C}, {K}, {K}), for {C} channels and cells that sum to {K}, "
            f"got shape {tuple(pos_embed.shape)}"
        )
    if pos_mode not in POS_MODES:
        raise InputError(f"pos_mode must be 'valid' or 'constant', got {pos_mode!r}")
    if not x.is_floating_point():
        raise InputError(f"x must be floating point, got {x.dtype}")
    if not autocasts(x.device.type):
        for name, tensor in (("weight", weight), ("bias", bias), ("pos_embed", pos_embed)):
            if tensor is not None and tensor.dtype != x.dtype:
                raise InputError(f"x is {x.dtype} and {name} is {tensor.dtype}; they must agree")
