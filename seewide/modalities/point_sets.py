"""Functions of point sets as small tensor operations: neighbours, sampling, rotations, splatting.

Each has a definition in a few plain lines beside it (`*_reference`), which the tests compare with.

Legend: B batch, N points, k neighbours, C channels, H x W pixels.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..errors import InputError

CHUNK = 1024  # query points at a time: a distance matrix of 4 MB per 1024 points


def nearest_neighbours(points_BN3: Tensor, k: int) -> Tensor:
    """Indices (B, N, k) of the k nearest points of every point, itself first.

    Raises:
        InputError: fewer points than k.
    """
    points = points_BN3.detach()
    N = points.shape[1]
    if not 1 <= k <= N:
        raise InputError(f"k must lie between 1 and the number of points, {N}, got {k=}")
    squares = points.square().sum(2)
    found = []
    for start in range(0, N, CHUNK):
        query = points[:, start : start + CHUNK]
        # |q - p|^2 without |q|^2, which orders the same.
        distance = squares[:, None] - 2 * query @ points.transpose(1, 2)
        found.append(distance.topk(k, dim=2, largest=False).indices)
    return torch.cat(found, 1)


def nearest_neighbours_reference(points_BN3: Tensor, k: int) -> Tensor:
    """The definition: all differences, squared, summed, sorted."""
    difference = points_BN3[:, :, None] - points_BN3[:, None]
    return difference.square().sum(3).argsort(dim=2)[:, :, :k]


def farthest_point_sampling(points_BN3: Tensor, count: int, start: int = 0) -> Tensor:
    """Indices (B, count): from point `start` on, always the point farthest from those chosen.

    Raises:
        InputError: more points asked for than there are.
    """
    B, N, _ = points_BN3.shape
    if not 1 <= count <= N:
        raise InputError(f"count must lie between 1 and the number of points, {N}, got {count=}")
    points = points_BN3.detach()
    chosen = torch.empty(B, count, dtype=torch.long, device=points.device)
    distance = points.new_full((B, N), math.inf)
    latest = torch.full((B, 1), start, dtype=torch.long, device=points.device)
    for i in range(count):
        chosen[:, i] = latest[:, 0]
        centre = points.gather(1, latest[:, :, None].expand(B, 1, 3))
        distance = torch.minimum(distance, (points - centre).square().sum(2))
        latest = distance.argmax(1, keepdim=True)
    return chosen


def farthest_point_sampling_reference(points_BN3: Tensor, count: int, start: int = 0) -> Tensor:
    """The definition, one cloud and one point at a time."""
    chosen = []
    for points in points_BN3:
        taken = [start]
        while len(taken) < count:
            nearest = torch.cdist(points, points[taken]).amin(1)
            taken.append(int(nearest.argmax()))
        chosen.append(taken)
    return torch.tensor(chosen)


def splat(features_BNC: Tensor, pixels_BN2: Tensor, height: int, width: int) -> Tensor:
    """Add each point's feature to the 3 x 3 pixels around its own: (B, C, height, width).

    Args:
        features_BNC: what is added.
        pixels_BN2: row and column of each point, integer; neighbours outside are left out.
    """
    B, N, C = features_BNC.shape
    offset = torch.arange(-1, 2, device=pixels_BN2.device)
    row = (pixels_BN2[..., 0, None, None] + offset[:, None]).expand(B, N, 3, 3).reshape(B, N * 9)
    column = (pixels_BN2[..., 1, None, None] + offset).expand(B, N, 3, 3).reshape(B, N * 9)
    inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
    first = torch.arange(B, device=row.device)[:, None] * (height * width)
    index = torch.where(inside, first + row * width + column, B * height * width)
    values = features_BNC[:, :, None].expand(B, N, 9, C).reshape(B * N * 9, C)
    image = features_BNC.new_zeros(B * height * width + 1, C)  # the last row takes what is outside
    image = image.index_add(0, index.reshape(-1), values)
    return image[:-1].reshape(B, height, width, C).permute(0, 3, 1, 2)


def splat_reference(features_BNC: Tensor, pixels_BN2: Tensor, height: int, width: int) -> Tensor:
    """The definition, point by point and neighbour by neighbour."""
    B, N, C = features_BNC.shape
    image = features_BNC.new_zeros(B, C, height, width)
    for b in range(B):
        for n in range(N):
            for i in (-1, 0, 1):
                for j in (-1, 0, 1):
                    row, column = (pixels_BN2[b, n] + torch.tensor([i, j])).tolist()
                    if 0 <= row < height and 0 <= column < width:
                        image[b, :, row, column] += features_BNC[b, n]
    return image


def axis_rotation(angle: Tensor, axis_3: Tensor) -> Tensor:
    """Rotation matrices (..., 3, 3) by `angle` (...), radians, about the unit vectors (..., 3).

    Rodrigues' formula: R = I + sin(a) K + (1 - cos(a)) K^2 with K the matrix of the cross product.
    """
    x, y, z = axis_3.unbind(-1)
    zero = torch.zeros_like(x)
    rows = [torch.stack(row, -1) for row in ((zero, -z, y), (z, zero, -x), (-y, x, zero))]
    cross = torch.stack(rows, -2)
    eye = torch.eye(3, dtype=cross.dtype, device=cross.device)
    angle = angle[..., None, None]
    return eye + angle.sin() * cross + (1 - angle.cos()) * (cross @ cross)


def view_rotation(theta_B: Tensor, phi_B: Tensor) -> Tensor:
    """Rotations (B, 3, 3) to a viewpoint: P2P's `R(-theta, z) R(-phi, (sin theta, -cos theta, 0))`.

    Points turn as `p R^T`. The training range is theta in (.04 pi, 1.94 pi), phi in (-.4 pi,
    -.2 pi); validation uses theta = (.1 + .2375 i) pi, i = 0 .. 7, and phi = -.35 pi.
    """
    zero, one = torch.zeros_like(theta_B), torch.ones_like(theta_B)
    upright = torch.stack([zero, zero, one], -1)
    level = torch.stack([theta_B.sin(), -theta_B.cos(), zero], -1)
    return axis_rotation(-theta_B, upright) @ axis_rotation(-phi_B, level)


def normalize_cloud(points_BN3: Tensor, authors_axes: bool = False) -> Tensor:
    """Centred, and divided by the largest distance from the centre (a point alone stays 0).

    Args:
        authors_axes: also `x[:, [2, 0, 1]] * (-1, -1, 1)`, the axes of the authors' data.
    """
    points = points_BN3 - points_BN3.mean(-2, keepdim=True)
    radius = points.norm(dim=-1).amax(-1)[..., None, None]
    points = points / torch.where(radius > 0, radius, 1.0)
    if authors_axes:
        points = points[..., [2, 0, 1]] * points.new_tensor([-1.0, -1.0, 1.0])
    return points
