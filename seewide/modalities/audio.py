"""Audio classification with an image network: augmentation and the composed model.

Papers: UniRepLKNet (arXiv 2311.15599, section 3.3), AST (2104.01778), SpecAugment (1904.08779).
The figures of the augmentations are those of the authors' audio folder.

Legend: B batch, n samples of a waveform, M mel bins, T frames, K classes.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import unknown
from ._authors import backbone_keys, split
from .log_mel import LogMel

HEADS = ("extra_norm", "extra_norm_only", "network")


class SpecAugment(nn.Module):
    """Masks one band of mel bins and one span of frames per map while training.

    The width of each is uniform in [0, limit), its start uniform over where it fits.

    Args:
        mel_bins: limit of the masked band; 0 masks none.
        frames: limit of the masked span; 0 masks none.
        fill: value of masked places. 0 is the mean of a normalised map; the authors' data loader
            masks with 0 before it normalises, which is `LogMel(padding="zero").fill`.

    Shape: (B, 1, M, T) -> the same; the identity in evaluation
    """

    def __init__(self, mel_bins: int = 48, frames: int = 48, fill: float = 0.0):
        super().__init__()
        self.mel_bins, self.frames, self.fill = mel_bins, frames, fill

    def forward(self, map_B1MT: Tensor) -> Tensor:
        if not self.training:
            return map_B1MT
        B, _, M, T = map_B1MT.shape
        bins = self._mask(B, M, self.mel_bins, map_B1MT.device)
        frames = self._mask(B, T, self.frames, map_B1MT.device)
        masked = bins[:, None, :, None] | frames[:, None, None, :]
        return map_B1MT.masked_fill(masked, self.fill)

    @staticmethod
    def _mask(B: int, size: int, limit: int, device: torch.device) -> Tensor:
        width = torch.rand(B, 1, device=device) * min(limit, size)
        start = torch.rand(B, 1, device=device) * (size - width)
        position = torch.arange(size, device=device)
        return (position >= start.long()) & (position < start.long() + width.long())


class NoiseAndRoll(nn.Module):
    """While training, adds uniform noise of a random strength and rolls each map in time.

    `x + U(0, 1) * u * strength` with u ~ U(0, 1) per map, then a roll by -shift .. shift - 1.

    Shape: (B, 1, M, T) -> the same; the identity in evaluation
    """

    def __init__(self, strength: float = 0.1, shift: int = 10):
        super().__init__()
        self.strength, self.shift = strength, shift

    def forward(self, map_B1MT: Tensor) -> Tensor:
        if not self.training:
            return map_B1MT
        B, T = map_B1MT.shape[0], map_B1MT.shape[3]
        u = torch.rand(B, 1, 1, 1, device=map_B1MT.device)
        noisy = map_B1MT + torch.rand_like(map_B1MT) * u * self.strength
        shift = torch.randint(-self.shift, max(self.shift, 1 - self.shift), (B, 1))
        source = (torch.arange(T) - shift).remainder(T).to(map_B1MT.device)
        return noisy.gather(3, source[:, None, None, :].expand_as(noisy))


def mix_waves(first_n: Tensor, second_n: Tensor, weight: float) -> Tensor:
    """`weight * first + (1 - weight) * second`, each without its mean and then the sum too.

    The second waveform is cut or zero-padded at the end to the length of the first. The labels
    are to be mixed with the same weight. The authors draw it from Beta(10, 10), for 6 of 10 clips.
    """
    first, second = first_n - first_n.mean(), second_n - second_n.mean()
    n = first.shape[-1]
    second = F.pad(second[..., :n], (0, max(0, n - second.shape[-1])))
    mixed = weight * first + (1 - weight) * second
    return mixed - mixed.mean()


class AudioClassifier(nn.Module):
    """Waveform -> `LogMel` -> augmentation -> image network with one input channel -> logits.

    Args:
        backbone: a timm network with `in_chans=1`; with `num_classes=0` unless `head` is
            "network".
        num_classes: K.
        frontend: waveform to map; `LogMel()` if absent.
        head: "extra_norm" puts LayerNorm and Linear on the pooled features, after the network's
            own final norm; "extra_norm_only" in its place (the two readings of the authors' code,
            whose own form cannot run; docs/modalities/audio); "network" uses the network's head.
        augment: applied to maps, itself the identity in evaluation.

    Shape: (B, n) -> (B, K)

    Raises:
        InputError: an unknown head.
    """

    def __init__(
        self,
        backbone: nn.Module,
        num_classes: int,
        frontend: nn.Module | None = None,
        head: str = "network",
        augment: nn.Module | None = None,
    ):
        super().__init__()
        if head not in HEADS:
            raise unknown("head", head, HEADS)
        self.frontend = LogMel() if frontend is None else frontend
        self.augment = nn.Identity() if augment is None else augment
        self.backbone = backbone
        self.head: nn.Module = nn.Identity()
        if head == "network":
            backbone.reset_classifier(num_classes)
        else:
            own_norm = head == "extra_norm"
            backbone.reset_classifier(0, "avg", **({} if own_norm else {"reset_other": True}))
            features = backbone.num_features
            self.head = nn.Sequential(nn.LayerNorm(features), nn.Linear(features, num_classes))

    def forward(self, waveform_Bn: Tensor, lengths: Tensor | None = None) -> Tensor:
        return self.classify(self.augment(self.frontend(waveform_Bn, lengths)))

    def classify(self, map_B1MT: Tensor) -> Tensor:
        """Logits (B, K) of maps that the front-end made."""
        return self.head(self.backbone(map_B1MT))

    def example_input(self) -> Tensor:
        """Waveforms (2, n) that fill the map, for `seewide.fuse`."""
        frontend = self.frontend
        samples = frontend.length + frontend.shift * (frontend.frames - 1)
        return torch.randn(2, samples, generator=torch.Generator().manual_seed(0))


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: AudioClassifier) -> dict[str, Tensor]:
    """The authors' state dict (`v.` and `mlp_head.`) to ours; ours passes unchanged."""
    if not any(key.startswith("v.") for key in state):
        return dict(state)
    network, rest = split(state, "v.")
    ours = {key.replace("mlp_head.", "head.", 1): value for key, value in rest.items()}
    return {**backbone_keys(model.backbone, network), **ours}
