"""Point clouds as learned images of several views, and the classifier of these images.

Papers: P2P (arXiv 2208.02812), UniRepLKNet (2311.15599, section 3.3); the fusion of views exists in
UniRepLKNet's code only. Names of submodules are the authors'.

Legend: B batch, V views, N points, k neighbours, S image side, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models.resnet import BasicBlock
from torch import Tensor, nn

from ..errors import InputError, unknown
from ._authors import backbone_keys, split
from .point_sets import nearest_neighbours, splat

GRAPH_WIDTH, POINT_WIDTH, IMAGE_WIDTH, TOKEN_WIDTH = 64, 8, 64, 128
MARGIN = 3  # pixels that the 3 x 3 neighbourhoods of the outermost points need


def _views(name: str) -> Tensor:
    """(V, 3, 3) rotations; points turn as `p R^T` and are then seen along the third axis."""
    if name == "authors":
        matrices = []
        for k in range(4):
            a, c = k * math.pi / 2, math.pi / 2
            about_x = torch.tensor(
                [[1, 0, 0], [0, math.cos(a), -math.sin(a)], [0, math.sin(a), math.cos(a)]]
            )
            about_z = torch.tensor(
                [[math.cos(c), -math.sin(c), 0], [math.sin(c), math.cos(c), 0], [0, 0, 1]]
            )
            matrices.append(about_x @ about_z)
        return torch.stack(matrices)
    if name == "three":
        return torch.stack([torch.eye(3)[order] for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1])])
    if name == "one":
        return torch.eye(3)[None]
    raise unknown("views", name, ("authors", "three", "one"))


class ViewFusion(nn.Module):
    """One transformer layer over the patches of all views of a cloud, beside a residual input.

    Shape: (B V, 64, S, S) -> (B V, 64, S, S), S at least 7
    """

    def __init__(self, views: int, heads: int = 8):
        super().__init__()
        self.views = views
        self.conv1 = nn.Conv2d(IMAGE_WIDTH, TOKEN_WIDTH, 7, stride=7, bias=False)
        self.transformer = nn.Module()
        attention = _PreNorm(_Attention(TOKEN_WIDTH, heads, TOKEN_WIDTH))
        mlp = _PreNorm(_Mlp(TOKEN_WIDTH, 2 * TOKEN_WIDTH))
        self.transformer.layers = nn.ModuleList([nn.ModuleList([attention, mlp])])
        self.conv2 = nn.Sequential(nn.Conv2d(TOKEN_WIDTH, IMAGE_WIDTH, 3, padding=1), nn.GELU())
        self.conv3 = nn.Sequential(nn.Conv2d(2 * IMAGE_WIDTH, IMAGE_WIDTH, 1), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        patches = self.conv1(x)
        BV, D, h, w = patches.shape
        tokens = patches.reshape(-1, self.views, D, h * w).transpose(2, 3).flatten(1, 2)
        for attention, mlp in self.transformer.layers:
            tokens = tokens + attention(tokens)
            tokens = tokens + mlp(tokens)
        patches = tokens.reshape(BV, h * w, D).transpose(1, 2).reshape(BV, D, h, w)
        full = F.interpolate(patches, size=x.shape[2:], mode="nearest")
        return self.conv3(torch.cat([self.conv2(full), x], 1))


class _PreNorm(nn.Module):
    def __init__(self, fn: nn.Module):
        super().__init__()
        self.norm = nn.LayerNorm(TOKEN_WIDTH)
        self.fn = fn

    def forward(self, x: Tensor) -> Tensor:
        return self.fn(self.norm(x))


class _Attention(nn.Module):
    """By `scaled_dot_product_attention`: the scores of 4096 tokens would take 0.5 GB per cloud."""

    def __init__(self, dim: int, heads: int, head_dim: int):
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.to_qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v)
        return self.to_out(y.transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, dim: int, hidden: int):
        super().__init__()
        # A dropout of 0 in the authors' code takes the name 2.
        self.net = nn.Sequential(
            nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class PointsToViews(nn.Module):
    """A point cloud to V images of three learned channels (P2P's projection).

    A feature of every point, from its k nearest neighbours, is added to the 3 x 3 pixels around
    the point in each view; convolutions, and attention over the patches of all views, make an
    image of it, which goes through a sigmoid and ImageNet's normalisation.

    Args:
        side: S, of the square that the cloud's larger extent fills.
        image_side: of the image, S if absent; the square lies in its centre.
        neighbours: k, the point itself included.
        views: "authors" for their four quarter turns about one axis, of which the last two are
            mirror images of the first two; "three" for the planes (xy, yz, zx); "one" for xy.
        fusion: whether `ViewFusion` follows; P2P has one view and no fusion.
        robust_floor: add 1e-4 before pixel coordinates are rounded down. Without it the last bit
            of a coordinate decides on which of two pixels the farthest point lies.

    Shape: (B, N, 3) -> (B V, 3, image_side, image_side); view v of cloud b is row b V + v

    Raises:
        InputError: unknown views, a side that does not fit, or fewer points than k.

    Example:
        >>> PointsToViews(side=56)(torch.randn(2, 256, 3)).shape
        torch.Size([8, 3, 56, 56])
    """

    view_rotation: Tensor

    def __init__(
        self,
        side: int = 224,
        image_side: int | None = None,
        neighbours: int = 32,
        views: str = "authors",
        fusion: bool = True,
        robust_floor: bool = False,
    ):
        super().__init__()
        image_side = side if image_side is None else image_side
        if not 7 <= side <= image_side or (image_side - side) % 2:
            raise InputError(
                f"side must be at least 7 and leave equal borders in image_side, got {side=}, "
                f"{image_side=}"
            )
        self.side, self.image_side, self.neighbours = side, image_side, neighbours
        self.robust_floor = robust_floor
        self.register_buffer("view_rotation", _views(views), persistent=False)
        self.views = len(self.view_rotation)
        self.input_trans = nn.Conv1d(3, POINT_WIDTH, 1)
        self.graph_layer = nn.Sequential(
            nn.Conv2d(2 * POINT_WIDTH, GRAPH_WIDTH, 1, bias=False),
            nn.GroupNorm(4, GRAPH_WIDTH),
            nn.LeakyReLU(0.2),
        )
        self.proj_layer = nn.Conv1d(GRAPH_WIDTH, IMAGE_WIDTH, 1)
        self.img_block = nn.Sequential(
            BasicBlock(IMAGE_WIDTH, IMAGE_WIDTH), nn.Conv2d(IMAGE_WIDTH, IMAGE_WIDTH, 1)
        )
        self.fusion = ViewFusion(self.views) if fusion else nn.Identity()
        self.img_layer = nn.Conv2d(IMAGE_WIDTH, 3, 1)
        for name, values in (("mean", IMAGENET_DEFAULT_MEAN), ("std", IMAGENET_DEFAULT_STD)):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def project(self, points_BN3: Tensor) -> Tensor:
        """(B, N, 3) to (B V, N, 3): the points as each view sees them, 1.4 before the camera."""
        turned = torch.einsum("bnj,vij->bvni", points_BN3, self.view_rotation)
        if self.views > 1:
            turned = turned + turned.new_tensor([0.0, 0.0, 1.4])
        return turned.flatten(0, 1)

    def point_features(self, points_BN3: Tensor) -> Tensor:
        """(B, N, 3) to (B, N, 64), from the graph of nearest neighbours."""
        index = nearest_neighbours(points_BN3, self.neighbours)
        f_BCN = self.input_trans(points_BN3.transpose(1, 2))
        B, C, N = f_BCN.shape
        flat = index.reshape(B, 1, -1).expand(B, C, -1)
        neighbour = f_BCN.gather(2, flat).reshape(B, C, N, -1)
        centre = f_BCN[..., None].expand_as(neighbour)
        edges = self.graph_layer(torch.cat([neighbour - centre, centre], 1))
        return self.proj_layer(edges.amax(3)).transpose(1, 2)

    def pixels(self, projected: Tensor) -> Tensor:
        """(B V, N, 3) to the row and column of each point in the image, int64 (B V, N, 2)."""
        p = projected.detach()[..., :2]
        low, high = p.amin(1, keepdim=True), p.amax(1, keepdim=True)
        extent = (high - low).amax(2, keepdim=True)
        grid = torch.where(extent > 0, extent, 1.0) / (self.side - MARGIN)
        place = (p - low) / grid
        ij = (place + 1e-4 if self.robust_floor else place).floor().long()
        middle = (ij.amax(1, keepdim=True) + ij.amin(1, keepdim=True)).div(2, rounding_mode="floor")
        return ij + self.image_side // 2 - middle - 1

    def forward(self, points_BN3: Tensor, positions_BN3: Tensor | None = None) -> Tensor:
        """See the class.

        Args:
            points_BN3: clouds, from which the features come.
            positions_BN3: rotated, scaled or shifted clouds, which the views show instead.
        """
        if points_BN3.ndim != 3 or points_BN3.shape[2] != 3:
            raise InputError(f"points must be (B, N, 3), got shape {tuple(points_BN3.shape)}")
        positions = points_BN3 if positions_BN3 is None else positions_BN3
        return self.draw(self.point_features(points_BN3), self.project(positions))

    def draw(self, features_BNC: Tensor, projected: Tensor) -> Tensor:
        """The images of point features (B, N, 64) at projected positions (B V, N, 3)."""
        features = features_BNC.repeat_interleave(self.views, 0)
        canvas = splat(features, self.pixels(projected), self.image_side, self.image_side)
        image = self.img_layer(self.fusion(self.img_block(canvas))).sigmoid()
        return (image - self.mean) / self.std


class DepthViews(nn.Module):
    """A cloud to one image of three fixed depth views (xy, yz, zx) as channels, without weights.

    Each pixel has the largest depth of the points on it and its 3 x 3 neighbourhood, scaled to
    [0, 1]; 0 where there is none. A baseline for the learned projection.

    Shape: (B, N, 3) -> (B, 3, side, side)
    """

    def __init__(self, side: int = 48):
        super().__init__()
        self.side = side

    def forward(self, points_BN3: Tensor, positions_BN3: Tensor | None = None) -> Tensor:
        points = points_BN3 if positions_BN3 is None else positions_BN3
        B = points.shape[0]
        low = points.amin((1, 2), keepdim=True)
        extent = points.amax((1, 2), keepdim=True) - low
        unit = (points - low) / torch.where(extent > 0, extent, 1.0)
        ij = (unit * (self.side - MARGIN) + 1).long()
        images = []
        for row, column, depth in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
            value = 0.2 + 0.8 * unit[..., depth]
            index = ij[..., row] * self.side + ij[..., column]
            flat = value.new_zeros(B, self.side**2).scatter_reduce(1, index, value, "amax")
            images.append(flat.reshape(B, 1, self.side, self.side))
        return F.max_pool2d(torch.cat(images, 1), 3, stride=1, padding=1)


class PointClassifier(nn.Module):
    """Cloud -> `PointsToViews` -> image network -> mean over places -> LayerNorm -> Linear.

    The features of a cloud's views are concatenated, as in the authors' head.

    Args:
        backbone: a timm network with three input channels; its head is removed.
        num_classes: K.
        frontend: cloud to images, with `views` per cloud if several; `PointsToViews()` if absent.

    Shape: (B, N, 3) -> (B, K)
    """

    def __init__(self, backbone: nn.Module, num_classes: int, frontend: nn.Module | None = None):
        super().__init__()
        self.enc = PointsToViews() if frontend is None else frontend
        self.backbone = without_head(backbone)
        self.views = getattr(self.enc, "views", 1)
        features = self.views * backbone.num_features
        self.cls_head = nn.Module()
        self.cls_head.norm = nn.LayerNorm(features)
        self.cls_head.cls_head = nn.Linear(features, num_classes)

    def forward(self, points_BN3: Tensor, positions_BN3: Tensor | None = None) -> Tensor:
        return self.classify(self.backbone(self.enc(points_BN3, positions_BN3)))

    def classify(self, feature: Tensor) -> Tensor:
        """Logits (B, K) of the last maps (B V, C, h, w)."""
        pooled = feature.mean((2, 3)).reshape(-1, self.cls_head.norm.normalized_shape[0])
        return self.cls_head.cls_head(self.cls_head.norm(pooled))

    def example_input(self) -> Tensor:
        """Clouds (2, 64, 3), for `seewide.fuse`."""
        return torch.randn(2, 64, 3, generator=torch.Generator().manual_seed(0))


def without_head(backbone: nn.Module) -> nn.Module:
    """`backbone`, changed in place to return its last map (N, C, h, w), normalised or not."""
    try:
        backbone.reset_classifier(0, "", reset_other=True)
    except TypeError:  # timm's networks keep their final norm, which then acts on the map
        backbone.reset_classifier(0, "")
    return backbone


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: PointClassifier) -> dict[str, Tensor]:
    """The authors' state dict (`base_model.`) to ours; ours passes unchanged."""
    network, rest = split(state, "base_model.")
    return {**rest, **backbone_keys(model.backbone, network)} if network else dict(state)
