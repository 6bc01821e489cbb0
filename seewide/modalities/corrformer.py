"""The decoder of Corrformer: correlations in time, and between the nodes of a tree.

Paper: "Interpretable weather forecasting for worldwide stations with a unified deep model"
(Corrformer, Nature Machine Intelligence 2023); UniRepLKNet (arXiv 2311.15599) replaces its encoder.
Names of submodules are the authors'.

Legend: G nodes (times samples), L steps, D width, h heads, d = D / h, S siblings, c columns.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError


def moving_average(x_GLD: Tensor, window: int) -> Tensor:
    """Mean over `window` steps around each, the ends repeated; (G, L, D) to the same."""
    front, back = (window - 1) // 2, window // 2
    padded = torch.cat(
        [x_GLD[:, :1].expand(-1, front, -1), x_GLD, x_GLD[:, -1:].expand(-1, back, -1)], 1
    )
    return F.avg_pool1d(padded.transpose(1, 2), window, stride=1).transpose(1, 2)


def decompose(x_GLD: Tensor, window: int) -> tuple[Tensor, Tensor]:
    """The series as (seasonal part, trend): what remains, and the moving average."""
    trend = moving_average(x_GLD, window)
    return x_GLD - trend, trend


def lag_correlation(query: Tensor, key: Tensor) -> Tensor:
    """sum over t of query[..., t + lag] * key[..., t], for all lags, around the end; last axis."""
    n = query.shape[-1]
    spectrum = torch.fft.rfft(query) * torch.fft.rfft(key).conj()
    return torch.fft.irfft(spectrum, n=n)


def roll_by(x: Tensor, lag: Tensor) -> Tensor:
    """Rolls along the last axis: `out[..., t] = x[..., (t + lag) mod L]`, a lag per row."""
    L = x.shape[-1]
    index = torch.arange(L, device=x.device) + lag[..., None]
    return x.gather(-1, index.remainder(L).expand_as(x))


class _Heads(nn.Module):
    """Projections to h heads and back."""

    def __init__(self, dim: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query_projection = nn.Linear(dim, dim)
        self.key_projection = nn.Linear(dim, dim)
        self.value_projection = nn.Linear(dim, dim)
        self.out_projection = nn.Linear(dim, dim)

    def _project(self, query: Tensor, memory: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Query, key, value as (..., h, d, L); the memory is cut or zero-padded to L."""
        L, S = query.shape[-2], memory.shape[-2]
        parts = [self.query_projection(query)]
        for projection in (self.key_projection, self.value_projection):
            part = projection(memory)[..., :L, :]
            parts.append(F.pad(part, (0, 0, 0, max(0, L - S))))
        q, k, v = (p.unflatten(-1, (self.heads, -1)).movedim(-3, -1) for p in parts)
        return q, k, v

    def _merge(self, v: Tensor) -> Tensor:
        return self.out_projection(v.movedim(-1, -3).flatten(-2))


class AutoCorrelation(_Heads):
    """Values rolled by the lags at which a series resembles itself, weighed by how much.

    The lags are the int(factor * ln L) best of the correlation's mean over channels, each node and
    head its own; weights are the softmax over them.

    Shape: (G, L, D), (G, L', D) -> (G, L, D)
    """

    def __init__(self, dim: int, heads: int, factor: int = 1):
        super().__init__(dim, heads)
        self.factor = factor

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        q, k, v = self._project(query, memory)
        mean = lag_correlation(q, k).mean(2)
        best = mean.topk(max(1, int(self.factor * math.log(v.shape[-1]))), dim=-1)
        weight = best.values.softmax(-1)
        y = torch.zeros_like(v)
        for i in range(best.indices.shape[-1]):
            lag = best.indices[:, :, None, i].expand(v.shape[:3])
            y = y + weight[:, :, i, None, None] * roll_by(v, lag)
        return self._merge(y)


class _WeightNormConv(nn.Conv1d):
    """A convolution whose weight is g v / |v|, under the names of torch's first `weight_norm`."""

    def __init__(self, channels: int, kernel_size: int):
        super().__init__(channels, channels, kernel_size, padding=kernel_size - 1)
        value = self.weight.detach()
        del self.weight
        self.weight_v = nn.Parameter(value)
        self.weight_g = nn.Parameter(value.flatten(1).norm(dim=1)[:, None, None])

    def forward(self, x: Tensor) -> Tensor:
        norm = self.weight_v.flatten(1).norm(dim=1)[:, None, None]
        weight = self.weight_g * self.weight_v / norm
        past = F.conv1d(x, weight, self.bias, padding=self.padding[0])
        return past[..., : x.shape[-1]]


class CausalBlock(nn.Module):
    """Two causal convolutions with ReLU and dropout beside an identity, then ReLU."""

    def __init__(self, channels: int, dropout: float):
        super().__init__()
        self.conv1 = _WeightNormConv(channels, 3)
        self.conv2 = _WeightNormConv(channels, 3)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        y = self.dropout(self.conv1(x).relu())
        y = self.dropout(self.conv2(y).relu())
        return (y + x).relu()


class CrossCorrelation(_Heads):
    """Siblings brought into step by their best lags, fused in the order of these, and put back.

    The query is the mean over siblings. Per sibling and head: the one best lag by the mean over
    channels; values are rolled forward by it and weighed with the sigmoid of the correlation. A
    causal convolution runs over the siblings sorted by L - lag.

    Shape: (G, S, L, D), (G, S, L', D) -> (G, S, L, D)
    """

    def __init__(self, dim: int, heads: int, steps: int, layers: int = 1, dropout: float = 0.2):
        super().__init__(dim, heads)
        channels = steps * dim // heads
        self.inner_correlation = nn.Module()
        self.inner_correlation.causal_fusion = nn.Module()
        self.inner_correlation.causal_fusion.network = nn.Sequential(
            *(CausalBlock(channels, dropout) for _ in range(layers))
        )

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        q, k, v = self._project(query, memory)  # (G, S, h, d, L)
        G, S, h, d, L = v.shape
        mean = lag_correlation(q.mean(1, keepdim=True).expand_as(q), k).mean(3)
        best = mean.max(dim=3)
        lag = best.indices  # (G, S, h)
        rows = lag[..., None].expand(G, S, h, d)
        y = roll_by(v, -rows) * best.values.sigmoid()[..., None, None]
        order = (L - lag).argsort(dim=1, stable=True)
        index = order[..., None, None].expand_as(y)
        sorted_y = y.gather(1, index)
        # (G h, d L, S): the siblings' axis is the one that the convolution runs along.
        sequence = sorted_y.permute(0, 2, 3, 4, 1).reshape(G * h, d * L, S)
        sequence = self.inner_correlation.causal_fusion.network(sequence)
        fused = sequence.reshape(G, h, d, L, S).permute(0, 4, 1, 2, 3)
        y = torch.zeros_like(fused).scatter(1, index, fused)
        return self._merge(roll_by(y, rows))


class MultiCorrelation(nn.Module):
    """Correlation in time at the leaves, plus the mean over the tree's levels of cross-correlation.

    At each level the nodes are averages of the leaves below them; the result is handed down to all
    of these.

    Args:
        tree: children of a node per level from the root on, such as (7, 50) for 350 leaves.

    Shape: (B leaves, L, D), (B leaves, L', D) -> (B leaves, L, D)
    """

    def __init__(
        self, dim: int, heads: int, steps: int, tree: tuple[int, ...], layers: int, dropout: float
    ):
        super().__init__()
        self.tree = tree
        self.auto_correlation = AutoCorrelation(dim, heads)
        self.cross_correlation = CrossCorrelation(dim, heads, steps, layers)
        self.dropout = nn.Dropout(dropout)

    def forward(self, query: Tensor, memory: Tensor) -> Tensor:
        leaf = self.dropout(self.auto_correlation(query, memory))
        across = torch.zeros_like(query)
        queries = query.unflatten(0, (-1, *self.tree))
        memories = memory.unflatten(0, (-1, *self.tree))
        for level in reversed(range(len(self.tree))):
            siblings = self.tree[level]
            q, m = (x.reshape(-1, siblings, *x.shape[-2:]) for x in (queries, memories))
            y = self.cross_correlation(q, m)
            below = math.prod(self.tree[level + 1 :])
            across = across + y.flatten(0, 1).repeat_interleave(below, 0)
            queries, memories = queries.mean(level + 1), memories.mean(level + 1)
        return self.dropout(leaf + across / len(self.tree))


class SeasonalNorm(nn.Module):
    """LayerNorm minus its mean over time."""

    def __init__(self, dim: int):
        super().__init__()
        self.layernorm = nn.LayerNorm(dim)

    def forward(self, x_GLD: Tensor) -> Tensor:
        x_GLD = self.layernorm(x_GLD)
        return x_GLD - x_GLD.mean(1, keepdim=True)


class DecoderLayer(nn.Module):
    """Self and cross correlation and an MLP, each followed by taking out the trend.

    Shape: (G, L, D), (G, L', D) -> (G, L, D) and the trend (G, L, c)
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        columns: int,
        steps: int,
        tree: tuple[int, ...],
        window: int,
        dropout: float,
        causal_layers: int = 1,
    ):
        super().__init__()
        self.window = window
        correlation = (dim, heads, steps, tree, causal_layers, dropout)
        self.multi_correlation = MultiCorrelation(*correlation)
        self.cross_multi_correlation = MultiCorrelation(*correlation)
        self.conv1 = nn.Conv1d(dim, hidden, 1, bias=False)
        self.conv2 = nn.Conv1d(hidden, dim, 1, bias=False)
        self.projection = nn.Conv1d(dim, columns, 3, padding=1, padding_mode="circular", bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        x, first = decompose(x + self.dropout(self.multi_correlation(x, x)), self.window)
        y = self.cross_multi_correlation(x, memory)
        x, second = decompose(x + self.dropout(y), self.window)
        y = self.dropout(F.gelu(self.conv1(x.transpose(1, 2))))
        y = self.dropout(self.conv2(y)).transpose(1, 2)
        x, third = decompose(x + y, self.window)
        trend = (first + second + third).transpose(1, 2)
        return x, self.projection(trend).transpose(1, 2)


class CorrformerDecoder(nn.Module):
    """Layers, then a norm and a projection of the seasonal part; the trends add up.

    Args:
        dim: D, a multiple of `heads`.
        heads: h.
        hidden: width of the MLPs.
        columns: c, series per node.
        steps: L.
        tree: children per level of the tree of nodes.
        window: steps of the moving average.
        layers: number of layers.
        dropout: in training.

    Shape: embedded input (G, L, D), memory (G, L', D), trend (G, L, c) -> two of (G, L, c):
        seasonal part and trend
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        hidden: int,
        columns: int,
        steps: int,
        tree: tuple[int, ...],
        window: int = 25,
        layers: int = 1,
        dropout: float = 0.05,
    ):
        super().__init__()
        if dim % heads:
            raise InputError(f"dim must be a multiple of heads, got {dim=} and {heads=}")
        each = (dim, heads, hidden, columns, steps, tree, window, dropout)
        self.layers = nn.ModuleList([DecoderLayer(*each) for _ in range(layers)])
        self.norm = SeasonalNorm(dim)
        self.projection = nn.Linear(dim, columns)

    def forward(self, x: Tensor, memory: Tensor, trend: Tensor) -> tuple[Tensor, Tensor]:
        for layer in self.layers:
            x, part = layer(x, memory)
            trend = trend + part
        return self.projection(self.norm(x)), trend
