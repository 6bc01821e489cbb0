"""Audio classification: one label, or a set of labels, per recording.

Shapes: N recordings, n samples each, K classes, M mel bins, T frames.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from seewide.data.audio import describe_audio, open_audio
from seewide.data.samples import Samples
from seewide.data.waves import read_wave
from seewide.errors import InputError
from seewide.modalities import AudioClassifier, LogMel, NoiseAndRoll, SpecAugment
from seewide.options import check, option
from seewide.tasks._task import Batch, DataSplits, Facts, ResultTable, Sample, Score, Task
from seewide.tasks.classification import ClassificationMetric, most_probable

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MEASURED = 200  # recordings whose log-mel values give the statistics of normalisation


@dataclass(frozen=True)
class AudioOptions:
    """Log-mel map, augmentation and loss."""

    mel_bins: int = option(128, "Mel bins, the height of the map.", least=4)
    frames: int = option(128, "Frames of 10 ms, the width of the map.", least=4)
    mean: float = option(
        0.0, "Mean of log-mel values (with std 0: measured on the training recordings)."
    )
    std: float = option(0.0, "Their standard deviation (0: measured).", least=0)
    padding: str = option(
        "mean",
        "What fills missing frames and masks: the mean, or zero as in the authors' code, which is "
        "a loud value in log-mel.",
        choices=("mean", "zero"),
    )
    bin_mean: bool = option(
        False, "Subtract from each mel bin its mean over the recording, as for unseen speakers."
    )
    freq_mask: int = option(0, "SpecAugment: upper limit of masked mel bins (0: none).", least=0)
    time_mask: int = option(0, "SpecAugment: upper limit of masked frames (0: none).", least=0)
    noise: float = option(0.0, "Strength of noise added to maps.", least=0)
    roll: int = option(0, "Roll maps in time by up to N frames.", least=0)
    speed: float = option(
        0.0, "Play recordings up to this share faster or slower, pitch included.", least=0, below=1
    )
    gain: float = option(0.0, "Change the volume by up to this many decibels.", least=0)
    mixup: float = option(
        0.0, "Probability that a recording is mixed with another one.", least=0, most=1
    )
    mixup_alpha: float = option(10.0, "Alpha of the Beta distribution of mixup.", above=0)
    loss: str = option(
        "auto",
        "cross_entropy, or bce (a sigmoid per class); auto: bce where recordings have several "
        "labels.",
        choices=("auto", "cross_entropy", "bce"),
    )
    label_smoothing: float = option(0.0, "Label smoothing of cross_entropy.", least=0, below=1)
    fold: int = option(5, "ESC-50: the fold that is held out.", least=1)

    def __post_init__(self) -> None:
        check(self)


class Audio(Task[AudioOptions]):
    """A log-mel map per recording, and an image network with one input channel."""

    name = "audio"
    Options = AudioOptions
    score = Score("top1", "max", "%", "top-1")
    unit = "recordings"
    default_recipe = "small_audio"

    @classmethod
    def recognize(cls, data: str) -> str | None:
        return describe_audio(data)

    def open(self, data: str) -> DataSplits:
        found = open_audio(data, self.options.fold)
        mean, std = self.options.mean, self.options.std
        if not std:
            mean, std = self._measure(found.train, found.sample_rate)
        facts = {
            "class_names": list(found.class_names),
            "multi_label": found.multi_label,
            "sample_rate": found.sample_rate,
            "mean": mean,
            "std": std,
        }
        short = Path(found.name).name
        return DataSplits(found.name, found.train, found.val, found.held_out, facts, short)

    def _measure(self, samples: Samples, rate: int) -> tuple[float, float]:
        """Mean and standard deviation of log-mel values of recordings at equal distances."""
        frontend = LogMel(rate, self.options.mel_bins, self.options.frames)
        values = []
        some = samples.limited(MEASURED)
        for index in range(len(some)):
            try:
                waveform = torch.from_numpy(some[index]["waveform"])[None]
                values.append(frontend.log_mel(waveform - waveform.mean()).flatten())
            except InputError:  # damaged or too short; training decides what to do about it
                continue
        if not values:
            raise InputError("none of the recordings can be read and is as long as a frame, 25 ms")
        values = torch.cat(values).double()
        return round(values.mean().item(), 4), round(values.std().item(), 4)

    def held_out(self, data: str, facts: Facts, *, trained_on: str) -> tuple[Samples, str]:
        found = open_audio(data, self.options.fold)
        for key, value in (
            ("class_names", list(found.class_names)),
            ("sample_rate", found.sample_rate),
        ):
            if facts[key] != value:
                raise InputError(
                    f"{data} does not agree with what the model was trained for: its {key} is "
                    f"{value}, that of the model {facts[key]}"
                )
        return found.val, found.held_out

    def measure(self, sample: Sample) -> dict[str, float]:
        waveform, rate = sample["waveform"], sample["sample_rate"]
        values = {"seconds": len(waveform) / rate, "sample rate, Hz": rate}
        values["peak"] = float(np.abs(waveform).max())
        if np.ndim(sample["label"]):
            values["labels"] = float(np.sum(sample["label"]))
        return values

    def backbone_options(self, facts: Facts) -> dict[str, Any]:
        return {"in_chans": 1, "num_classes": len(facts["class_names"])}

    def build(self, backbone: nn.Module, facts: Facts) -> nn.Module:
        options = self.options
        self._rate = facts["sample_rate"]
        frontend = LogMel(
            facts["sample_rate"],
            options.mel_bins,
            options.frames,
            facts["mean"],
            facts["std"],
            options.padding,
            bin_mean=options.bin_mean,
        )
        augment = nn.Sequential(
            SpecAugment(options.freq_mask, options.time_mask, frontend.fill),
            NoiseAndRoll(options.noise, options.roll),
        )
        self._bce = options.loss == "bce" or (options.loss == "auto" and facts["multi_label"])
        return AudioClassifier(backbone, len(facts["class_names"]), frontend, augment=augment)

    def example(self, facts: Facts, preprocess: dict[str, Any], count: int = 2) -> Tensor:
        samples = int(facts["sample_rate"] * (self.options.frames + 2) / 100)
        return torch.randn(count, samples, generator=torch.Generator().manual_seed(0))

    def transform(self, train: bool, preprocess: dict[str, Any]) -> Callable[[Sample], Sample]:
        return _Waveform(self.options, train)

    def collate(self, samples: list[Sample]) -> Batch:
        """`waveform` (N, n) padded with zeros, `length` (N,), `label` (N,) or (N, K)."""
        lengths = [len(sample["waveform"]) for sample in samples]
        waveform = torch.zeros(len(samples), max(lengths))
        for row, sample in zip(waveform, samples, strict=True):
            row[: len(sample["waveform"])] = sample["waveform"]
        label = torch.stack([torch.as_tensor(sample["label"]) for sample in samples])
        return {"waveform": waveform, "length": torch.tensor(lengths), "label": label}

    def loss(self, model: nn.Module, batch: Batch) -> dict[str, Any]:
        waveform, lengths, label = batch["waveform"], batch["length"], batch["label"]
        if label.ndim == 1 and (self._bce or self.options.mixup):
            label = F.one_hot(label, self._classes(model)).float()
        if self.options.mixup:
            waveform, label = self._mixed(waveform, lengths, label)
        logits = model(waveform, lengths)
        if self._bce:
            each = F.binary_cross_entropy_with_logits(logits, label, reduction="none").mean(1)
        else:
            smoothing = self.options.label_smoothing
            each = F.cross_entropy(logits, label, label_smoothing=smoothing, reduction="none")
        return {"loss": each.sum(), "weight": len(waveform)}

    @staticmethod
    def _classes(model: nn.Module) -> int:
        return model.backbone.num_classes

    def _mixed(self, waveform: Tensor, lengths: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        """`mix_waves` with partners of the same micro-batch, for some of its recordings."""
        N, n = waveform.shape
        device = waveform.device
        alpha = torch.full((N,), self.options.mixup_alpha)
        weight = torch.distributions.Beta(alpha, alpha).sample().to(device)
        chosen = torch.rand(N, device=device) < self.options.mixup
        weight = torch.where(chosen, weight, 1.0)[:, None]
        partner = torch.randint(N, (N,), device=device)
        real = torch.arange(n, device=device) < lengths[:, None]
        total = (waveform * real).sum(1, keepdim=True)
        centred = (waveform - total / lengths[:, None]) * real
        # The partner is cut to the first one's length, or zero beyond its own.
        mixed = (weight * centred + (1 - weight) * centred[partner]) * real
        return mixed, weight * label + (1 - weight) * label[partner]

    def predict(self, model: nn.Module, batch: Batch) -> Tensor:
        """Logits (N, K)."""
        return model(batch["waveform"], batch["length"])

    def metric(self, facts: Facts) -> ClassificationMetric | MultiLabelMetric:
        classes = len(facts["class_names"])
        return MultiLabelMetric() if facts["multi_label"] else ClassificationMetric(classes)

    def tables(
        self, metric: ClassificationMetric | MultiLabelMetric, facts: Facts
    ) -> list[ResultTable]:
        names = facts["class_names"]
        if isinstance(metric, MultiLabelMetric):
            ap, auc = metric.per_class()
            rows = [
                (name, round(100 * a, 1), round(100 * u, 1))
                for name, a, u in zip(names, ap.tolist(), auc.tolist(), strict=True)
                if not math.isnan(a)
            ]
            return [ResultTable("Per class", ("class", "average precision %", "AUC %"), rows)]
        return [metric.table(names, "recordings")]

    def figures(self, metric: Any, facts: Facts) -> dict[str, Callable[[Path], Path]]:
        return {} if isinstance(metric, MultiLabelMetric) else metric.figures(facts["class_names"])

    def read(self, path: Path) -> Iterable[Sample]:
        waveform, rate = read_wave(path)
        if rate != self._rate:
            raise InputError(
                f"{path} has a sample rate of {rate} Hz, the model was trained on recordings of "
                f"{self._rate} Hz; resample it"
            )
        yield {"waveform": waveform, "sample_rate": rate, "label": 0}

    def describe(self, prediction: Tensor, index: int, facts: Facts) -> dict[str, Any]:
        """`{"classes": [{"name": ..., "probability": ...}]}`, the five most probable."""
        logits = prediction[index].float()
        probability = logits.sigmoid() if facts["multi_label"] else logits.softmax(0)
        return {"classes": most_probable(probability, facts)}

    def draw(self, sample: Sample, description: dict[str, Any]) -> Figure:
        """The log-mel map beside the five best classes."""
        from matplotlib.figure import Figure

        frontend = LogMel(sample["sample_rate"], self.options.mel_bins, self.options.frames)
        waveform = torch.as_tensor(sample["waveform"])[None]
        figure = Figure(figsize=(9, 3.2), layout="constrained")
        left, right = figure.subplots(1, 2, width_ratios=(2, 1))
        seconds = self.options.frames / 100
        extent = (0, seconds, 0, self.options.mel_bins)
        left.imshow(frontend(waveform)[0, 0].numpy(), origin="lower", aspect="auto", extent=extent)
        left.set(xlabel="seconds", ylabel="mel bin", title="log-mel map")
        classes = description["classes"][::-1]
        right.barh([c["name"] for c in classes], [c["probability"] for c in classes])
        right.set(xlim=(0, 1), xlabel="probability")
        return figure


class _Waveform:
    """A recording to a tensor; speed and volume vary while training."""

    def __init__(self, options: AudioOptions, train: bool) -> None:
        self.options, self.train = options, train

    def __call__(self, sample: Sample) -> Sample:
        waveform = torch.from_numpy(np.ascontiguousarray(sample["waveform"]))
        if self.train and self.options.speed:
            factor = 1 + self.options.speed * (2 * torch.rand(()).item() - 1)
            size = max(2, round(len(waveform) / factor))
            waveform = F.interpolate(waveform[None, None], size, mode="linear")[0, 0]
        if self.train and self.options.gain:
            decibels = self.options.gain * (2 * torch.rand(()).item() - 1)
            waveform = waveform * 10 ** (decibels / 20)
        # No more than the map shows, so that one long recording does not pad the batch.
        longest = int(sample["sample_rate"] * (self.options.frames + 2) / 100)
        return {"waveform": waveform[:longest], "label": sample["label"]}


class MultiLabelMetric:
    """Mean average precision (mAP), AUC and d' over the classes that occur."""

    def __init__(self) -> None:
        self._scores: list[Tensor] = []
        self._truth: list[Tensor] = []

    def update(self, prediction: Tensor, batch: Batch) -> None:
        self._scores.append(prediction.float().cpu())
        self._truth.append(batch["label"].float().cpu())

    def merge(self, others: Sequence[MultiLabelMetric]) -> None:
        for other in others:
            self._scores += other._scores
            self._truth += other._truth

    def per_class(self) -> tuple[Tensor, Tensor]:
        """Average precision and AUC (K,); NaN for classes that all or no recordings have."""
        score, truth = torch.cat(self._scores).double(), torch.cat(self._truth).double()
        order = score.argsort(dim=0, descending=True, stable=True)
        hit = truth.gather(0, order)
        rank = torch.arange(1, len(hit) + 1, dtype=torch.float64)[:, None]
        positives, negatives = hit.sum(0), (1 - hit).sum(0)
        ap = (hit * hit.cumsum(0) / rank).sum(0) / positives
        # AUC: the share of pairs in which the positive is ranked first.
        auc = (hit * (negatives - (1 - hit).cumsum(0))).sum(0) / (positives * negatives)
        single = (positives == 0) | (negatives == 0)
        nan = torch.tensor(float("nan"), dtype=torch.float64)
        return torch.where(single, nan, ap), torch.where(single, nan, auc)

    def compute(self) -> dict[str, float]:
        """`map`, `auc` and `top1` (the best class is one of the recording's) in percent, `dprime`,
        and the loss."""
        score, truth = torch.cat(self._scores), torch.cat(self._truth)
        ap, auc = self.per_class()
        mean_auc = auc.nanmean().item()
        dprime = 2**0.5 * torch.special.ndtri(torch.tensor(mean_auc).clamp(1e-6, 1 - 1e-6)).item()
        loss = F.binary_cross_entropy_with_logits(score, truth).item()
        first = truth.gather(1, score.argmax(1, keepdim=True)).mean().item()
        return {
            "loss": loss,
            "map": 100 * ap.nanmean().item(),
            "auc": 100 * mean_auc,
            "dprime": dprime,
            "top1": 100 * first,
        }
