"""Weights, inputs and figures of the authors' modules, for comparison with ours.

The figures were computed by the authors' code with weights and inputs that depend on names, shapes
and seeds alone. Those of small cases are in `figures/` (with fewer arrays); all are in the parity
folder, which is preferred where a machine has it.
"""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

HERE = Path(__file__).parent / "figures"
PARITY = Path(__file__).resolve().parents[3] / "shared" / "parity" / "modalities"


class Figures:
    """One case: `what` (its description) and arrays by name, as tensors."""

    def __init__(self, name: str):
        folder = PARITY if (PARITY / f"{name}.npz").is_file() else HERE
        if not (folder / f"{name}.npz").is_file():
            pytest.skip(f"the authors' figures of {name} are not on this machine")
        self.what = json.loads((folder / f"{name}.json").read_text())
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            self.arrays = dict(arrays)

    def __contains__(self, key: str) -> bool:
        return key in self.arrays

    def __getitem__(self, key: str) -> Tensor:
        return torch.from_numpy(np.array(self.arrays[key]))

    def named(self, prefix: str) -> dict[str, Tensor]:
        """The arrays whose names start with `prefix`, without it."""
        return {k.removeprefix(prefix): self[k] for k in self.arrays if k.startswith(prefix)}

    def weights(self) -> dict[str, Tensor]:
        """A state dict in the authors' layout, with the values the figures were made with."""
        state = {}
        sources = self.what.get("tied_keys", [])
        for key, (shape, dtype) in self.what["keys"].items():
            if dtype == "float32":
                state[key] = weight(key, tuple(shape))
            else:
                state[key] = torch.zeros(shape, dtype=torch.int64)
        for key in sources:  # one tensor under two names has the values of the first
            first = key.replace(".net.0.", ".conv1.").replace(".net.4.", ".conv2.")
            state[key] = state[first]
        return state


def weight(name: str, shape: tuple[int, ...]) -> Tensor:
    """The value of a parameter or statistic, from its name and shape."""
    draw = np.random.RandomState(zlib.crc32(name.encode())).standard_normal(shape)
    last = name.rsplit(".", 1)[-1]
    fan_in = max(1, int(np.prod(shape[1:])))
    if last == "running_var":
        draw = 1 + 0.2 * np.abs(draw)
    elif last == "affine_weight":
        # Drawn as any matrix, which rounds once, then scaled back around 1.
        scaled = torch.from_numpy((draw / np.sqrt(fan_in)).astype(np.float32))
        return 1 + 0.1 * scaled * np.sqrt(fan_in)
    elif last == "running_mean":
        draw = 0.1 * draw
    elif len(shape) <= 1:
        around = {"weight": 1.0}.get(last, 0.5 if last in SCALES else 0.0)
        draw = around + 0.1 * draw
    elif last in ("gamma", "beta"):
        draw = 0.1 * draw
    else:
        draw = draw / np.sqrt(fan_in)
    return torch.from_numpy(np.asarray(draw, dtype=np.float32)).reshape(shape)


SCALES = ("gamma", "gamma1", "gamma2", "layer_scale")


def normal(*shape: int, seed: int = 0) -> Tensor:
    draw = np.random.RandomState(seed).standard_normal(shape)
    return torch.from_numpy(draw.astype(np.float32))


def wave(samples: int, rate: int, seed: int) -> Tensor:
    """(1, n): a chirp with a partial that fades, one click, noise and an offset."""
    t = np.arange(samples) / rate
    phase = 2 * np.pi * (200 * t + (rate / 5 - 200) * t**2 / (2 * samples / rate))
    y = 0.3 * np.sin(phase) + 0.15 * np.sin(2.01 * phase) * np.exp(-3 * t)
    y[samples // 3] += 0.5
    y = y + 0.01 * np.random.RandomState(seed).standard_normal(samples) + 0.05
    return torch.from_numpy(y.astype(np.float32))[None]


def series(steps: int, columns: int, seed: int) -> Tensor:
    """(1, steps, columns): a daily wave, a trend and noise per column, of unequal scales."""
    draw = np.random.RandomState(seed)
    t = np.arange(steps)[:, None]
    angle = 2 * np.pi * t / 24 + draw.uniform(0, 2 * np.pi, columns)
    y = np.sin(angle) * draw.uniform(10, 60, columns) + t * draw.uniform(-1, 1, columns)
    y = y + draw.uniform(-50, 250, columns) + 5 * draw.standard_normal((steps, columns))
    return torch.from_numpy(y.astype(np.float32))[None]


def stations(count: int, seed: int) -> Tensor:
    """(count, 3): latitude, longitude and elevation."""
    draw = np.random.RandomState(seed + 1000)
    ranges = ((-60, 70), (-180, 180), (0, 3000))
    columns = [draw.uniform(low, high, count) for low, high in ranges]
    return torch.from_numpy(np.stack(columns, 1))


def masks(frames: int, height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two sequences (frames, height, width) of an ellipse and a moved and scaled one.

    Frame 0 of both and frame 1 of the second are empty.
    """
    draw = np.random.RandomState(seed)
    rows, columns = np.mgrid[:height, :width]

    def ellipse(cy, cx, ry, rx):
        return ((rows - cy) / ry) ** 2 + ((columns - cx) / rx) ** 2 <= 1

    first, second = np.zeros((2, frames, height, width), np.uint8)
    for frame in range(1, frames):
        cy, cx = draw.uniform(0.3, 0.7) * height, draw.uniform(0.3, 0.7) * width
        ry, rx = draw.uniform(0.1, 0.3) * height, draw.uniform(0.1, 0.3) * width
        dy, dx, scale = draw.uniform(-6, 6), draw.uniform(-6, 6), draw.uniform(0.8, 1.25)
        first[frame] = ellipse(cy, cx, ry, rx)
        if frame > 1:
            second[frame] = ellipse(cy + dy, cx + dx, scale * ry, scale * rx)
    return first, second


def assert_features(figures: Figures, features: list[Tensor], limit: float) -> None:
    """Shape, mean, standard deviation and corner of each stage's output are the figures'."""
    from seewide.testing import deviation

    for i, x in enumerate(features):
        assert tuple(x.shape) == tuple(figures[f"feat{i}_shape"].tolist())
        statistics = {
            "mean": x.mean((0, 2, 3)),
            "std": x.std((0, 2, 3)),
            "corner": x[..., 0, 0],
        }
        for part, got in statistics.items():
            found = deviation(got, figures[f"feat{i}_{part}"])
            assert found < limit, f"stage {i}, {part} deviates by {found:.1e}"
