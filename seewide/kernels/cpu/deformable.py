"""DCNv3 on the CPU, as a sum of table rows.

An output pixel of one group is a sum of 4 K weighted rows of D neighbouring floats: K taps, each
with four neighbours in the map. `embedding_bag` is that sum, in torch's vectorised FBGEMM kernel:
the padded map is its table, and one table of top-left neighbours serves all four corners, each
reading the map from a shifted start. At 8 x 56 x 56 x 24 with D = 8, one thread, the four bags
take 4.4 ms where grid_sample alone takes 9.4 and its permutes and products as much again; at
D = 16, 6.3 and 38.

    dW = <dy, neighbours>        dx = the transposed table times dy: its indices sorted, bags again

Legend: N batch, H x W map, C channels in G groups of D, K taps, P = N H' W' G outputs of D floats,
R = N (H + 4) (W + 4) G rows of the padded map.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .._plain import needs_plain_operators
from .opaque import opaque

# Two pixels of zeros on every side: both neighbours of a point that lies outside are zeros, once
# its floor is clamped to [-2, size].
MARGIN = 2
PART = 2**18  # points computed at once: tables of some 10 MB; 2**17 to 2**21 are within 5%


def cannot(x: Tensor, *rest) -> str | None:
    """None if this file can compute on `x`, else the reason in a sentence."""
    if x.device.type != "cpu":
        return f"the input is on {x.device.type}, this backend runs on cpu"
    return needs_plain_operators()


def dcnv3(
    x: Tensor,
    offset: Tensor,
    mask: Tensor,
    kernel_size: int,
    groups: int,
    offset_scale: float,
    stride: int,
    dilation: int,
    softmax: bool,
    formula: Callable[..., Tensor],
) -> Tensor:
    """`seewide.ops.dcnv3` on the CPU.

    Args:
        formula: the same arguments but this one, to the same result in plain operators that can
            be differentiated twice.
    """
    geometry = (kernel_size, groups, offset_scale, stride, dilation)
    if x.dtype in (torch.bfloat16, torch.float16):
        wide = (tensor.float() for tensor in (x, offset, mask))
        return dcnv3(*wide, *geometry, softmax, formula).to(x.dtype)
    taps = kernel_size * kernel_size
    if softmax:
        mask = mask.reshape(*mask.shape[:3], groups, taps).softmax(-1)
    mask = mask.reshape(*offset.shape[:3], groups * taps)
    if torch.is_grad_enabled() and any(t.requires_grad for t in (x, offset, mask)):
        return _Deformable.apply(x, offset, mask, *geometry, formula)
    return _forward(x, offset, mask, *geometry)


def _parts(mask: Tensor) -> list[slice]:
    """Slices of the batch whose tables fit in the cache."""
    if mask.numel() == 0:
        return []
    images = max(1, PART * mask.shape[0] // mask.numel())
    return [slice(n, n + images) for n in range(0, mask.shape[0], images)]


def _neighbours(
    x: Tensor,
    offset: Tensor,
    kernel_size: int,
    groups: int,
    offset_scale: float,
    stride: int,
    dilation: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, tuple[int, int, int, int]]:
    """Indices and interpolation weights of all sampled points.

    Returns:
        rows (R, D) of the padded map; index (P, K) of each point's upper left neighbour in it;
        fractions (P, K) of a pixel by which the point is right of and below that; and how many
        rows further the upper left, upper right, lower left and lower right ones are.
    """
    (N, H, W, C), (Ho, Wo) = x.shape, offset.shape[1:3]
    width = W + 2 * MARGIN
    rows = F.pad(x, (0, 0, MARGIN, MARGIN, MARGIN, MARGIN)).reshape(-1, C // groups)

    # Everything that depends on column, group and tap, as one line of W' G K numbers, so that
    # the passes over all points run through long lines.
    tap = torch.arange(kernel_size, dtype=x.dtype) - kernel_size // 2
    tap = offset_scale * dilation * tap
    pixels = stride * torch.arange(Wo, dtype=x.dtype)[:, None, None]
    line = (Wo, groups, kernel_size * kernel_size)
    column = (pixels + tap.repeat_interleave(kernel_size)).expand(line).reshape(-1)
    row = stride * torch.arange(Ho, dtype=x.dtype)[:, None] + tap.repeat(kernel_size).repeat(
        Wo * groups
    )
    steps = offset.reshape(N, Ho, -1, 2)
    column = torch.add(column, steps[..., 0], alpha=offset_scale)
    row = torch.add(row, steps[..., 1], alpha=offset_scale)

    # NaN and infinity become valid indices here; the fraction stays NaN.
    left, top = column.floor(), row.floor()
    right_by, down_by = column.sub_(left), row.sub_(top)
    integer = torch.int32 if max(rows.shape[0], offset.numel()) < 2**31 else torch.int64
    left = left.to(integer).clamp_(-MARGIN, W)
    top = top.to(integer).clamp_(-MARGIN, H)
    first = torch.arange(groups, dtype=integer)[:, None] + MARGIN * (width + 1) * groups
    image = torch.arange(N, dtype=integer) * (rows.shape[0] // N)
    index = left.add_(top, alpha=width).mul_(groups)
    index = index.add_(first.expand(line).reshape(-1)).add_(image[:, None, None])
    shifts = (0, groups, width * groups, (width + 1) * groups)
    points = (-1, kernel_size * kernel_size)
    return rows, index.reshape(points), right_by.reshape(points), down_by.reshape(points), shifts


def _shares(right_by: Tensor, down_by: Tensor, mask: Tensor) -> tuple[Tensor, ...]:
    """Weights (P, K) of the four neighbours: bilinear weight times the mask."""
    lower = mask * down_by
    upper = mask - lower
    lower_right, upper_right = lower * right_by, upper * right_by
    return upper - upper_right, upper_right, lower - lower_right, lower_right


GEOMETRY = "int kernel_size, int groups, float offset_scale, int stride, int dilation"


@opaque(
    "dcnv3_cpu",
    f"(Tensor x, Tensor offset, Tensor mask, {GEOMETRY}) -> Tensor",
    lambda x, offset, *rest: x.new_empty(*offset.shape[:3], x.shape[3]),
)
def _forward(x: Tensor, offset: Tensor, mask: Tensor, *geometry) -> Tensor:
    y = x.new_empty(*offset.shape[:3], x.shape[3])
    for part in _parts(mask):
        rows, index, right_by, down_by, shifts = _neighbours(x[part], offset[part], *geometry)
        shares = _shares(right_by, down_by, mask[part].reshape(index.shape))
        total = None
        for shift, share in zip(shifts, shares, strict=True):
            bag = F.embedding_bag(index, rows[shift:], per_sample_weights=share, mode="sum")
            total = bag if total is None else total.add_(bag)
        y[part] = total.view(y[part].shape)
    return y


@opaque(
    "dcnv3_gradients_cpu",
    "(Tensor x, Tensor offset, Tensor mask, Tensor dy, bool for_x, bool for_points, "
    f"{GEOMETRY}) -> (Tensor, Tensor, Tensor)",
    lambda x, offset, mask, dy, for_x, for_points, *geometry: _results(
        x, offset, mask, for_x, for_points
    ),
)
def _gradients(
    x: Tensor, offset: Tensor, mask: Tensor, dy: Tensor, for_x: bool, for_points: bool, *geometry
) -> tuple[Tensor, Tensor, Tensor]:
    """dx, doffset and dmask; those that were not requested are empty."""
    dx, doffset, dmask = _results(x, offset, mask, for_x, for_points)
    for part in _parts(mask):
        rows, index, right_by, down_by, shifts = _neighbours(x[part], offset[part], *geometry)
        m = mask[part].reshape(index.shape)
        dy_rows = dy[part].reshape(-1, rows.shape[1])
        if for_x:
            shares = _shares(right_by, down_by, m)
            dx[part] = _map_gradient(index, dy_rows, shares, shifts, dx[part])
        if for_points:
            a, b, c, d = _dots(rows, index, shifts, dy_rows)
            b, d = b.sub_(a), d.sub_(c)  # along the upper and the lower edge
            upper, lower = torch.addcmul(a, b, right_by), torch.addcmul(c, d, right_by)
            dmask[part] = torch.lerp(upper, lower, down_by).view(dmask[part].shape)
            right = torch.lerp(b, d, down_by).mul_(m)
            down = lower.sub_(upper).mul_(m)
            steps = torch.stack((right, down), -1).mul_(geometry[2])
            doffset[part] = steps.view(doffset[part].shape)
    return dx, doffset, dmask


def _results(
    x: Tensor, offset: Tensor, mask: Tensor, for_x: bool, for_points: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Contiguous tensors to hold the gradients; of shape (0,) where none is requested."""
    wanted = ((x, for_x), (offset, for_points), (mask, for_points))
    return tuple(t.new_empty(t.shape if wants else (0,)) for t, wants in wanted)


class _Deformable(torch.autograd.Function):
    """The sum, with gradients that are sums of rows again; second ones by the plain formula."""

    @staticmethod
    def forward(x: Tensor, offset: Tensor, mask: Tensor, *arguments) -> Tensor:
        return _forward(x, offset, mask, *arguments[:-1])

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        x, offset, mask, *ctx.geometry, ctx.formula = inputs
        ctx.save_for_backward(x, offset, mask)

    @staticmethod
    def backward(ctx, dy: Tensor):
        needed = ctx.needs_input_grad[:3]
        if torch.is_grad_enabled():  # second derivatives were requested
            gradients = _differentiable_gradients(ctx, dy)
        else:
            points = needed[1] or needed[2]
            gradients = _gradients(*ctx.saved_tensors, dy, needed[0], points, *ctx.geometry)
        found = tuple(g if need else None for g, need in zip(gradients, needed, strict=True))
        return (*found, None, None, None, None, None, None)


def _differentiable_gradients(ctx, dy: Tensor) -> list[Tensor | None]:
    tensors, needed = ctx.saved_tensors, ctx.needs_input_grad[:3]
    y = ctx.formula(*tensors, *ctx.geometry, False)  # the mask is normalized already
    inputs = [t for t, need in zip(tensors, needed, strict=True) if need]
    found = iter(torch.autograd.grad(y, inputs, dy, create_graph=True))
    return [next(found) if need else None for need in needed]


def _dots(rows: Tensor, index: Tensor, shifts: tuple[int, ...], dy: Tensor) -> tuple[Tensor, ...]:
    """Dot products (P, K) of each output's gradient with the rows that it read, per neighbour."""
    read = rows.new_empty(index.numel(), rows.shape[1])  # one buffer for all four
    dots = []
    for shift in shifts:
        torch.index_select(rows[shift:], 0, index.reshape(-1), out=read)
        dots.append(torch.bmm(read.view(*index.shape, -1), dy[:, :, None]).squeeze(-1))
    return tuple(dots)


def _map_gradient(
    index: Tensor, dy: Tensor, shares: tuple[Tensor, ...], shifts: tuple[int, ...], x: Tensor
) -> Tensor:
    """dx, of the shape of `x`: each row of the padded map sums the outputs that read it."""
    N, H, W, C = x.shape
    padded = (N, H + 2 * MARGIN, W + 2 * MARGIN, C)
    drows = dy.new_zeros(padded).view(-1, dy.shape[1])
    R = drows.shape[0]
    sorted_index, order = index.reshape(-1).sort()
    starts = torch.searchsorted(sorted_index, torch.arange(R, dtype=index.dtype)).to(index.dtype)
    reader = torch.div(order, index.shape[1], rounding_mode="floor").to(index.dtype)
    for shift, share in zip(shifts, shares, strict=True):
        share = share.reshape(-1).index_select(0, order)
        bag = F.embedding_bag(reader, dy, starts, per_sample_weights=share, mode="sum")
        drows[shift:] += bag[: R - shift]
    return drows.view(padded)[:, MARGIN:-MARGIN, MARGIN:-MARGIN]
