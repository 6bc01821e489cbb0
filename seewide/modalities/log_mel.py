"""Log-mel spectrograms as Kaldi's `compute-fbank-feats` computes them, and the map made of them.

    frame t   = waveform[t * shift : t * shift + length], minus its mean, then
                y[i] - 0.97 * y[max(i - 1, 0)], times a Hann window, zero-padded to a power of two
    power     = |rfft(frame)| ** 2
    mel[b]    = sum over f of triangle[b, f] * power[f]
    log_mel   = log(max(mel, 1.19e-7))

The triangles are linear and of equal width in mel = 1127 ln(1 + f / 700), from 20 Hz to half the
sample rate. These are the defaults of `torchaudio.compliance.kaldi.fbank` with `htk_compat=True,
use_energy=False, window_type="hanning", dither=0`, the input of AST (arXiv 2104.01778) and of
UniRepLKNet on audio (2311.15599, section 3.3).

Legend: B batch, n samples of a waveform, T frames, M mel bins.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import InputError, unknown

FRAME_MS, SHIFT_MS = 25.0, 10.0
PREEMPHASIS = 0.97
LOWEST_HZ = 20.0
FLOOR = torch.finfo(torch.float32).eps

# (mean, standard deviation) of log-mel values at 16 kHz and 128 bins, from the AST code base.
STATISTICS = {
    "speech_commands": (-6.845978, 5.5654526),
    "audioset": (-4.2677393, 4.5689974),
    "esc50": (-6.6268077, 5.358466),
}


def mel_filter_bank(sample_rate: int, mel_bins: int, fft_size: int) -> Tensor:
    """Triangular filters, (M, fft_size // 2 + 1); the last column (half the rate) is zero.

    In float32 throughout: with weights rounded from float64, quiet bins of real recordings come
    out up to 1e-4 away from Kaldi's.
    """
    low, high = _mel(LOWEST_HZ), _mel(sample_rate / 2)
    width = (high - low) / (mel_bins + 1)
    frequencies = torch.arange(fft_size // 2) * (sample_rate / fft_size)
    mel = 1127.0 * (1.0 + frequencies / 700.0).log()
    position = torch.arange(mel_bins)[:, None]
    left, centre, right = (low + (position + i) * width for i in range(3))
    rising = (mel - left) / (centre - left)
    falling = (right - mel) / (right - centre)
    return F.pad(torch.minimum(rising, falling).clamp_min(0.0), (0, 1))


def _mel(hertz: float) -> float:
    return 1127.0 * math.log(1.0 + hertz / 700.0)


class LogMel(nn.Module):
    """Waveforms to normalised log-mel maps of a fixed number of frames.

    Each waveform loses its mean, becomes T' = 1 + (n - length) // shift frames, is cut or padded
    at the end to T frames, and normalised as (x - mean) / (2 * std).

    Args:
        sample_rate: of the waveforms, in Hz.
        mel_bins: M.
        frames: T.
        mean: subtracted from log-mel values.
        std: half of what they are divided by.
        padding: "mean" fills missing frames with `mean`, which is 0 in the map; "zero" with 0, a
            loud value in log-mel, as in the authors' data loader.
        frequency_first: maps are (B, 1, M, T), as in the authors' code; otherwise (B, 1, T, M),
            as in equation (3) of 2311.15599.
        bin_mean: subtract from each bin its mean over the frames of the waveform (cepstral mean
            normalisation), which takes out the voice and the room; `mean` is then unused.

    Shape: (B, n) -> (B, 1, M, T)

    Raises:
        InputError: an unknown padding, or a sample rate or number of bins that is not positive.

    Example:
        >>> LogMel(16000)(torch.randn(2, 16000)).shape
        torch.Size([2, 1, 128, 128])
    """

    window: Tensor
    filters: Tensor

    def __init__(
        self,
        sample_rate: int = 16000,
        mel_bins: int = 128,
        frames: int = 128,
        mean: float = STATISTICS["speech_commands"][0],
        std: float = STATISTICS["speech_commands"][1],
        padding: str = "mean",
        frequency_first: bool = True,
        bin_mean: bool = False,
    ):
        super().__init__()
        if padding not in ("mean", "zero"):
            raise unknown("padding", padding, ("mean", "zero"))
        if min(sample_rate, mel_bins, frames) < 1 or std <= 0:
            raise InputError(
                "sample_rate, mel_bins, frames and std must be positive, got "
                f"{sample_rate=}, {mel_bins=}, {frames=}, {std=}"
            )
        self.sample_rate, self.mel_bins, self.frames = sample_rate, mel_bins, frames
        self.mean, self.std, self.padding = mean, std, padding
        self.frequency_first, self.bin_mean = frequency_first, bin_mean
        self.length = int(sample_rate * FRAME_MS / 1000)
        self.shift = int(sample_rate * SHIFT_MS / 1000)
        if self.length < 2 or self.shift < 1:
            raise InputError(f"sample_rate must be at least 100 Hz, got {sample_rate=}")
        self.fft_size = 1 << (self.length - 1).bit_length()
        # Constants, not weights: absent from state dicts.
        self.register_buffer(
            "window", torch.hann_window(self.length, periodic=False), persistent=False
        )
        self.register_buffer(
            "filters", mel_filter_bank(sample_rate, mel_bins, self.fft_size), persistent=False
        )

    @property
    def fill(self) -> float:
        """The value of padding in a normalised map."""
        return 0.0 if self.padding == "mean" else -self.mean / (2 * self.std)

    def frames_of(self, samples: Tensor | int) -> Tensor | int:
        """Number of complete frames in waveforms of that many samples; 0 if shorter than one."""
        if isinstance(samples, Tensor):
            return ((samples - self.length) // self.shift + 1).clamp_min(0)
        return max(0, (samples - self.length) // self.shift + 1)

    def log_mel(self, waveform_Bn: Tensor) -> Tensor:
        """(B, n) to (B, T', M): every complete frame, neither padded nor normalised.

        Raises:
            InputError: not (B, n), or shorter than one frame.
        """
        if waveform_Bn.ndim != 2 or waveform_Bn.shape[1] < self.length:
            raise InputError(
                f"a waveform must be (B, n) with n at least {self.length} samples "
                f"({FRAME_MS:g} ms at {self.sample_rate} Hz), got shape {tuple(waveform_Bn.shape)}"
            )
        frames = waveform_Bn.unfold(1, self.length, self.shift)
        frames = frames - frames.mean(2, keepdim=True)
        previous = torch.cat([frames[..., :1], frames[..., :-1]], 2)
        frames = (frames - PREEMPHASIS * previous) * self.window
        power = torch.fft.rfft(frames, n=self.fft_size).abs().square()
        return (power @ self.filters.T).clamp_min(FLOOR).log()

    def forward(self, waveform_Bn: Tensor, lengths: Tensor | None = None) -> Tensor:
        """See the class.

        Args:
            waveform_Bn: waveforms, padded at the end where they are of unequal length.
            lengths: (B,), samples of each before padding; all of them if absent.
        """
        waveform = waveform_Bn
        if lengths is None:
            waveform = waveform - waveform.mean(1, keepdim=True)
        else:
            real = torch.arange(waveform.shape[1], device=waveform.device) < lengths[:, None]
            total = (waveform * real).sum(1, keepdim=True)
            waveform = (waveform - total / lengths[:, None].clamp_min(1)) * real
        if waveform.shape[1] < self.length:  # too short for a frame of its own
            waveform = F.pad(waveform, (0, self.length - waveform.shape[1]))
        log_mel = self.log_mel(waveform)
        count = log_mel.shape[1]
        real = None
        if lengths is not None:
            frames = torch.arange(count, device=waveform.device)
            real = (frames < self.frames_of(lengths)[:, None])[:, :, None]
        mean: Tensor | float = self.mean
        if self.bin_mean and real is None:
            mean = log_mel.mean(1, keepdim=True)
        elif self.bin_mean:
            present = real.sum(1, keepdim=True).clamp_min(1)
            mean = torch.where(real, log_mel, 0.0).sum(1, keepdim=True) / present
        map_BTM = (log_mel - mean) / (2 * self.std)
        if real is not None:
            map_BTM = torch.where(real, map_BTM, self.fill)
        if count < self.frames:
            map_BTM = F.pad(map_BTM, (0, 0, 0, self.frames - count), value=self.fill)
        map_BTM = map_BTM[:, : self.frames]
        map_B1TM = map_BTM.unsqueeze(1)
        return map_B1TM.transpose(2, 3) if self.frequency_first else map_B1TM

    def extra_repr(self) -> str:
        return (
            f"{self.sample_rate} Hz, mel_bins={self.mel_bins}, frames={self.frames}, "
            f"mean={self.mean}, std={self.std}, padding={self.padding!r}"
        )
