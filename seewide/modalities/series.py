"""Time series as square maps for image networks, and the forecaster around one.

Papers: UniRepLKNet (arXiv 2311.15599, section 3.3), Corrformer (Nature Machine Intelligence 2023).
Stations lie in groups ("nodes") of c neighbours; nodes stand in the batch.

Legend: B samples, G nodes, L input steps, P predicted steps, c columns per node, D width, M = G c
series in all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ..errors import InputError, unknown
from ._authors import backbone_keys, split
from .corrformer import CorrformerDecoder, decompose
from .points import without_head

MARKS = 4  # hour, weekday, day of the month, day of the year, each in [-0.5, 0.5]
READINGS = ("tokens", "reshaped_map", "reshaped_pooled")
DECODERS = ("linear", "corrformer")


class SeriesEmbedding(nn.Module):
    """Values, time marks and station coordinates to D channels per step, added up.

    Args:
        columns: c.
        dim: D.
        marks: whether time marks (G, L, 4) are an input.
        places: whether coordinates (G, 3 c) are one.
        dropout: in training.

    Shape: (G, L, c) -> (G, L, D)
    """

    def __init__(
        self,
        columns: int,
        dim: int,
        marks: bool = True,
        places: bool = False,
        dropout: float = 0.05,
    ):
        super().__init__()
        self.value_embedding = nn.Module()
        self.value_embedding.tokenConv = nn.Conv1d(
            columns, dim, 3, padding=1, padding_mode="circular", bias=False
        )
        nn.init.kaiming_normal_(self.value_embedding.tokenConv.weight, nonlinearity="leaky_relu")
        self.temporal_embedding = self.national_embedding = None
        if marks:
            self.temporal_embedding = nn.Module()
            self.temporal_embedding.embed = nn.Linear(MARKS, dim, bias=False)
        if places:
            self.national_embedding = nn.Module()
            self.national_embedding.location_embedding = nn.Linear(3 * columns, dim)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, x_GLc: Tensor, marks_GL4: Tensor | None = None, places_Gp: Tensor | None = None
    ) -> Tensor:
        y = self.value_embedding.tokenConv(x_GLc.transpose(1, 2)).transpose(1, 2)
        if self.temporal_embedding is not None and marks_GL4 is not None:
            y = y + self.temporal_embedding.embed(marks_GL4)
        if self.national_embedding is not None and places_Gp is not None:
            y = y + self.national_embedding.location_embedding(places_Gp)[:, None]
        return self.dropout(y)


class SeriesToMap(nn.Module):
    """L embedded steps of D channels as one square map: their memory, row by row.

    At L = 48 and D = 768 the map is 192 x 192 and each step has four rows.

    Args:
        pad: fill the end with zeros where L D is not a square; without it that is an error.

    Shape: (G, L, D) -> (G, 1, s, s) with s * s = L D (or the next square)

    Raises:
        InputError: L D is not a square.
    """

    def __init__(self, pad: bool = False):
        super().__init__()
        self.pad = pad

    def forward(self, x_GLD: Tensor) -> Tensor:
        G, L, D = x_GLD.shape
        side = math.isqrt(L * D)
        if side * side != L * D:
            if not self.pad:
                raise InputError(
                    f"steps x width must be a square, got {L} x {D} = {L * D}; choose a width such "
                    f"as {_width(L, D)}, or SeriesToMap(pad=True)"
                )
            side += 1
            flat = nn.functional.pad(x_GLD.flatten(1), (0, side * side - L * D))
            return flat.reshape(G, 1, side, side)
        return x_GLD.reshape(G, 1, side, side)


def _width(steps: int, near: int) -> int:
    """The width closest to `near` with which `steps` make a square."""
    root = next(r for r in range(1, steps + 1) if (r * r) % steps == 0)  # least multiple of a root
    least = root * root // steps
    scale = max(1, round(math.sqrt(near / least)))
    return least * scale * scale


def standardize_places(places_M3: Tensor) -> Tensor:
    """Latitude, longitude and elevation of M stations, each z-scored over the stations."""
    places = places_M3.double()
    spread = places.std(0, correction=0)
    return ((places - places.mean(0)) / torch.where(spread > 0, spread, 1.0)).float()


class Forecaster(nn.Module):
    """Series -> instance norm -> embedding -> square map -> image network -> decoder -> forecast.

    Args:
        backbone: a timm network with `in_chans=1`; its classifier is removed.
        steps: L.
        horizon: P.
        columns: c.
        nodes: G, or the shape of their tree from the root on, such as (7, 50).
        dim: D; L D should be a square.
        decoder: "linear" maps the pooled features to the horizon and adds a linear function of the
            input itself (`skip=False` leaves that out); "corrformer" is the authors' decoder,
            whose input is the last P steps of context and zeros.
        reading: how the network's output becomes the decoder's memory. "tokens" has a token per
            place of the last map; "reshaped_map" reshapes that map as it lies in memory, which
            mixes channels and places, and "reshaped_pooled" the pooled features: the two readings
            of the authors' code. The linear decoder always pools.
        heads: of the Corrformer decoder.
        hidden: width of its MLP.
        window: steps of its moving average.
        layers: number of its layers.
        label_steps: steps of context that its input starts with; half of L if absent.
        marks: whether time marks are an input.
        places: whether station coordinates are one.
        dropout: in training.
        skip: see `decoder`.

    Shape: (B, L, M) -> (B, P, M)

    Raises:
        InputError: an unknown decoder or reading, or sizes that do not fit.
    """

    def __init__(
        self,
        backbone: nn.Module,
        steps: int,
        horizon: int,
        columns: int,
        nodes: int | Sequence[int] = 1,
        dim: int = 768,
        decoder: str = "linear",
        reading: str = "tokens",
        heads: int = 16,
        hidden: int = 2048,
        window: int = 25,
        layers: int = 1,
        label_steps: int | None = None,
        marks: bool = True,
        places: bool = False,
        dropout: float = 0.05,
        skip: bool = True,
    ):
        super().__init__()
        if decoder not in DECODERS:
            raise unknown("decoder", decoder, DECODERS)
        if reading not in READINGS:
            raise unknown("reading", reading, READINGS)
        self.steps, self.horizon, self.columns = steps, horizon, columns
        self.tree = (nodes,) if isinstance(nodes, int) else tuple(nodes)
        self.nodes = math.prod(self.tree)
        self.reading, self.window, self.dim = reading, window, dim
        self.label_steps = steps // 2 if label_steps is None else label_steps
        self.affine_weight = nn.Parameter(torch.ones(1, 1, columns))
        self.affine_bias = nn.Parameter(torch.zeros(1, 1, columns))
        self.enc_embedding = SeriesEmbedding(columns, dim, marks, places, dropout)
        self.to_map = SeriesToMap()
        self.to_map(torch.empty(1, steps, dim, device="meta"))  # a square, or its sentence
        pooled = decoder == "linear" or reading == "reshaped_pooled"
        self.backbone = backbone
        if pooled:
            backbone.reset_classifier(0, "avg")
        else:
            without_head(backbone)
        self.dec_embedding: nn.Module | None = None
        self.skip: nn.Module | None = None
        if decoder == "corrformer":
            length = self.label_steps + horizon
            self.dec_embedding = SeriesEmbedding(columns, dim, marks, places, dropout)
            self.decoder: nn.Module = CorrformerDecoder(
                dim, heads, hidden, columns, length, self.tree, window, layers, dropout
            )
            features = backbone.num_features
            self.token_projection: nn.Module = nn.Identity()
            if reading == "tokens" and features != dim:
                self.token_projection = nn.Linear(features, dim)
        else:
            self.decoder = nn.Linear(backbone.num_features, horizon * columns)
            if skip:
                self.skip = nn.Linear(steps, horizon)

    def forward(
        self, x_BLM: Tensor, marks_BT4: Tensor | None = None, places_M3: Tensor | None = None
    ) -> Tensor:
        """See the class.

        Args:
            x_BLM: series, node by node.
            marks_BT4: time marks of the L + P steps.
            places_M3: standardized coordinates of the stations (`standardize_places`).
        """
        B, L, M = x_BLM.shape
        if self.steps != L or self.nodes * self.columns != M:
            raise InputError(
                f"series must be (B, {self.steps}, {self.nodes * self.columns}) for "
                f"{self.nodes} nodes of {self.columns} columns, got shape {tuple(x_BLM.shape)}"
            )
        # Nodes to the batch: sample b's node g is row b G + g.
        x = x_BLM.reshape(B, L, self.nodes, self.columns).transpose(1, 2).flatten(0, 1)
        mean = x.mean(1, keepdim=True).detach()
        std = (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt()
        x = (x - mean) / std * self.affine_weight + self.affine_bias
        marks = None if marks_BT4 is None else marks_BT4.repeat_interleave(self.nodes, 0)
        places = None
        if places_M3 is not None:
            places = places_M3.reshape(self.nodes, -1).repeat(B, 1)
        early = None if marks is None else marks[:, :L]
        features = self.backbone(self.to_map(self.enc_embedding(x, early, places)))
        if self.dec_embedding is None:
            y = self.decoder(features).reshape(-1, self.horizon, self.columns)
            if self.skip is not None:
                y = y + self.skip(x.transpose(1, 2)).transpose(1, 2)
        else:
            y = self._decode(x, self._memory(features), marks, places)
        y = (y - self.affine_bias) / (self.affine_weight + 1e-10) * std + mean
        y = y.reshape(B, self.nodes, self.horizon, self.columns).transpose(1, 2)
        return y.flatten(2)

    def _memory(self, features: Tensor) -> Tensor:
        if self.reading == "tokens":
            return self.token_projection(features.flatten(2).transpose(1, 2))
        if features[0].numel() % self.dim:
            raise InputError(
                f"reading {self.reading!r} needs a multiple of dim={self.dim} numbers per node, "
                f"got {features[0].numel()}"
            )
        return features.reshape(len(features), -1, self.dim)

    def decoder_inputs(self, x_GLc: Tensor) -> tuple[Tensor, Tensor]:
        """(seasonal, trend) that decoding starts from, (G, label_steps + P, c) each.

        Both begin with the last `label_steps` of the input's parts; then the trend goes on with
        the input's mean, the seasonal part with zeros.
        """
        seasonal, trend = decompose(x_GLc, self.window)
        G, _, c = x_GLc.shape
        start = x_GLc.shape[1] - self.label_steps
        mean = x_GLc.mean(1, keepdim=True).expand(G, self.horizon, c)
        zeros = x_GLc.new_zeros(G, self.horizon, c)
        return torch.cat([seasonal[:, start:], zeros], 1), torch.cat([trend[:, start:], mean], 1)

    def _decode(
        self, x: Tensor, memory: Tensor, marks: Tensor | None, places: Tensor | None
    ) -> Tensor:
        seasonal, trend = self.decoder_inputs(x)
        late = None if marks is None else marks[:, self.steps - self.label_steps :]
        assert self.dec_embedding is not None
        embedded = self.dec_embedding(seasonal, late, places)
        seasonal, trend = self.decoder(embedded, memory, trend)
        return (seasonal + trend)[:, -self.horizon :]

    def example_input(self) -> Tensor:
        """Series (2, L, M), for `seewide.fuse`."""
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, self.steps, self.nodes * self.columns, generator=generator)


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: Forecaster) -> dict[str, Tensor]:
    """The authors' state dict (`encoder.`) to ours; ours passes unchanged.

    Their causal convolutions stand in it twice, as `conv1` and `net.0`, `conv2` and `net.4`.
    """
    network, rest = split(state, "encoder.")
    if not network:
        return dict(state)
    ours = {key: v for key, v in rest.items() if ".net.0." not in key and ".net.4." not in key}
    return {**ours, **backbone_keys(model.backbone, network)}
