"""Simple methods that networks for audio, video, point clouds and series are compared with.

Each is a function of the data and of the options of the task, and returns scores by name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.data.audio import open_audio
from seewide.data.points import open_points
from seewide.data.video import open_videos
from seewide.modalities import LogMel
from seewide.modalities.point_sets import normalize_cloud
from seewide.modalities.video import spread_indices
from seewide.tasks.forecasting import Forecasting, ForecastingOptions, ridge_baseline

Scores = dict[str, float]
Options = Mapping[str, Any]
Labelled = tuple[Tensor, Tensor]  # features (N, D) and labels (N,)


def ridge_accuracy(train: Labelled, val: Labelled, strength: float = 1.0) -> Scores:
    """One-hot least squares with an L2 penalty on z-scored features (N, D)."""
    (x, y), (u, v) = train, val
    mean, std = x.mean(0), x.std(0).clamp_min(1e-6)
    x, u = (((part - mean) / std).double() for part in (x, u))
    target = F.one_hot(y).double()
    target, offset = target - target.mean(0), target.mean(0)
    if len(x) < x.shape[1]:  # the dual problem is the smaller one
        gram = x @ x.T + strength * x.shape[1] * torch.eye(len(x), dtype=x.dtype)
        weight = x.T @ torch.linalg.solve(gram, target)
    else:
        gram = x.T @ x + strength * len(x) * torch.eye(x.shape[1], dtype=x.dtype)
        weight = torch.linalg.solve(gram, x.T @ target)
    return accuracy(u @ weight + offset, v)


def accuracy(logits: Tensor, label: Tensor) -> Scores:
    """Overall accuracy and the mean of the classes' recalls, in percent."""
    right = (logits.argmax(1) == label).double()
    recalls = [right[label == k].mean() for k in label.unique()]
    return {"top1": 100 * right.mean().item(), "macc": 100 * torch.stack(recalls).mean().item()}


def log_mel_maps(
    data: str, options: Options
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Flat log-mel maps of the training and the held-out recordings, and their labels."""
    found = open_audio(data)
    frontend = LogMel(found.sample_rate, options["mel_bins"], options["frames"])

    def maps(samples) -> Labelled:
        waves = [torch.from_numpy(sample["waveform"]) for sample in samples]
        flat = torch.stack([frontend(wave[None]).flatten() for wave in waves])
        return flat, torch.as_tensor(np.array([sample["label"] for sample in samples]))

    return maps(found.train), maps(found.val)


def audio_neighbours(data: str, options: Options) -> Scores:
    """The majority among the 5 nearest training maps."""
    (x, y), (u, v) = log_mel_maps(data, options)
    nearest = torch.cdist(u, x).topk(5, largest=False).indices
    return accuracy(F.one_hot(y)[nearest].sum(1).double(), v)


def audio_ridge(data: str, options: Options) -> Scores:
    return ridge_accuracy(*log_mel_maps(data, options))


def audio_mlp(data: str, options: Options, seed: int = 0) -> Scores:
    """A hidden layer of 256 units on the maps, 30 epochs of AdamW with dropout 0.3."""
    (x, y), (u, v) = log_mel_maps(data, options)
    mean, std = x.mean(), x.std()
    x, u = (x - mean) / std, (u - mean) / std
    torch.manual_seed(seed)
    model = nn.Sequential(
        nn.Dropout(0.3), nn.Linear(x.shape[1], 256), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(256, int(y.max()) + 1),
    )  # fmt: skip
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05)
    for _ in range(30):
        for chosen in torch.randperm(len(x)).split(32):
            loss = F.cross_entropy(model(x[chosen]), y[chosen], label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        return accuracy(model(u), v)


def occupancy_ridge(data: str, options: Options) -> Scores:
    """Counts of points in 8 x 8 x 8 cells of the unit cube around the cloud."""
    found = open_points(data)

    def cells(samples) -> Labelled:
        features = []
        for sample in samples:
            points = normalize_cloud(torch.from_numpy(np.array(sample["points"]))[None])[0]
            index = ((points + 1) * 4).long().clamp(0, 7) @ torch.tensor([64, 8, 1])
            features.append(torch.bincount(index, minlength=512).float().sqrt())
        return torch.stack(features), torch.as_tensor(samples.labels)

    return ridge_accuracy(cells(found.train), cells(found.val))


def motion_ridge(data: str, options: Options) -> Scores:
    """Mean absolute differences of consecutive frames in 6 x 6 cells, per pair of frames."""
    found = open_videos(data)

    def cells(samples) -> Labelled:
        features = []
        for sample in samples:
            video = sample["video"]
            frames = video.read(spread_indices(video.count(), options["frames"])[0])
            grey = torch.from_numpy(frames).float().mean(3)
            cell_T66 = F.adaptive_avg_pool2d(grey.diff(dim=0).abs()[:, None], 6)
            features.append(cell_T66.flatten().log1p())
        return torch.stack(features), torch.as_tensor(np.asarray(samples.labels))

    return ridge_accuracy(cells(found.train), cells(found.val))


def _windows(data: str, options: Options):
    own = {k: v for k, v in options.items() if k != "skip"}
    task = Forecasting(ForecastingOptions(**own))
    splits = task.open(data)
    held = splits.val
    if data.endswith("ETTh1.csv"):
        test = Forecasting(ForecastingOptions(**own, part="test"))
        held, _ = test.held_out(data, splits.facts, trained_on=data)
    return splits.train, held


def _errors(held, forecast) -> Scores:
    """Mean errors where the truth is known."""
    square = absolute = count = 0.0
    for sample in held:
        error = (forecast(sample["x"], len(sample["y"])) - sample["y"])[~sample["missing"]]
        square, absolute = square + (error**2).sum(), absolute + np.abs(error).sum()
        count += error.size
    return {"mse": float(square / count), "mae": float(absolute / count)}


def repeat_last(data: str, options: Options) -> Scores:
    return _errors(_windows(data, options)[1], lambda x, P: np.repeat(x[-1:], P, 0))


def repeat_season(data: str, options: Options, season: int = 24) -> Scores:
    def forecast(x: np.ndarray, P: int) -> np.ndarray:
        return x[-season:][np.arange(P) % season]

    return _errors(_windows(data, options)[1], forecast)


def shared_ridge(data: str, options: Options) -> Scores:
    """`ridge_baseline`, one linear map for all series."""
    return ridge_baseline(*_windows(data, options))
