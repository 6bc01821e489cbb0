"""Video classification with an image network: frames laid out as one large image.

Paper: UniRepLKNet (arXiv 2311.15599, section 3.3, equation 5). Which frames of a video are read is
that of the authors' video folder (which follows VideoMAE, 2203.12602).

Legend: B batch, C channels, T frames, H x W frame, K classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import InputError, unknown
from ._authors import backbone_keys

LAYOUTS = ("tile", "official")


class FramesToMap(nn.Module):
    """T = k * k frames as one image of k times their height and width.

    Args:
        layout: "tile" puts whole frames on a k x k grid, row by row. "official" reshapes the
            memory of (B, C, T, H, W) to (B, C, k H, k W), as the authors' code does:
            `out[r, c]` is frame `r // (H / k)`, row `k (r mod (H / k)) + c // W`, column
            `c mod W`. A frame then owns H / k full rows of the image, and its rows h appear in k
            blocks by h mod k.
        difference: replace each frame but the first by its difference from the frame before it.

    Shape: (B, C, T, H, W) -> (B, C, k H, k W)

    Raises:
        InputError: an unknown layout, T not a square, or H not divisible by k ("official").

    Example:
        >>> FramesToMap()(torch.rand(2, 3, 16, 56, 56)).shape
        torch.Size([2, 3, 224, 224])
    """

    def __init__(self, layout: str = "tile", difference: bool = False):
        super().__init__()
        if layout not in LAYOUTS:
            raise unknown("layout", layout, LAYOUTS)
        self.layout, self.difference = layout, difference

    def forward(self, frames_BCTHW: Tensor) -> Tensor:
        if frames_BCTHW.ndim != 5:
            raise InputError(f"frames must be (B, C, T, H, W), got {tuple(frames_BCTHW.shape)}")
        B, C, T, H, W = frames_BCTHW.shape
        k = math.isqrt(T)
        if k * k != T or T == 0:
            raise InputError(f"the number of frames must be a square (4, 9, 16, ...), got {T}")
        frames = frames_BCTHW
        if self.difference:
            frames = torch.cat([frames[:, :, :1], frames.diff(dim=2)], 2)
        if self.layout == "official":
            if H % k:
                raise InputError(
                    f"layout 'official' needs a height divisible by {k} for {T} frames, got {H}"
                )
            return frames.reshape(B, C, k * H, k * W)
        grid = frames.reshape(B, C, k, k, H, W).transpose(3, 4)
        return grid.reshape(B, C, k * H, k * W)

    def extra_repr(self) -> str:
        return f"layout={self.layout!r}, difference={self.difference}"


def clip_indices(
    video_frames: int, clip: int = 16, rate: int = 4, start: int | None = None
) -> np.ndarray:
    """Indices (clip,) of the frames of one clip of `clip * rate` frames.

    In a longer video the clip starts at `start` (centred if absent) and its indices are
    `linspace(start, start + clip * rate, clip)`, truncated, at most the last frame of the clip. Of
    a shorter one `video_frames // rate` frames are spread evenly and the last frame is repeated.

    Raises:
        InputError: an empty video, or a start outside [0, video_frames - clip * rate].
    """
    if video_frames < 1:
        raise InputError(f"the video must have at least one frame, got {video_frames}")
    span = clip * rate
    if video_frames <= span:
        spread = np.linspace(0, video_frames, num=video_frames // rate)
        indices = np.concatenate([spread, np.full(clip - len(spread), float(video_frames))])
        return np.clip(indices, 0, video_frames - 1).astype(np.int64)
    if start is None:
        start = (video_frames - span) // 2
    if not 0 <= start <= video_frames - span:
        raise InputError(
            f"start must lie in [0, {video_frames - span}] for {video_frames} frames, got {start}"
        )
    indices = np.linspace(start, start + span, num=clip)
    return np.clip(indices, start, start + span - 1).astype(np.int64)


def random_clip_indices(
    video_frames: int, clip: int = 16, rate: int = 4, random: np.random.RandomState | None = None
) -> np.ndarray:
    """`clip_indices` of a random start; its end is uniform in [clip * rate, video_frames)."""
    span = clip * rate
    if video_frames <= span:
        return clip_indices(video_frames, clip, rate)
    draw = np.random if random is None else random
    return clip_indices(video_frames, clip, rate, int(draw.randint(span, video_frames)) - span)


def evaluation_clip_indices(
    video_frames: int, clip: int = 16, rate: int = 4, segments: int = 5
) -> np.ndarray:
    """Indices (segments, clip): every `rate`-th frame, in windows spread over the video."""
    every = list(range(0, video_frames, rate))
    every += [every[-1]] * (clip - len(every))
    step = max((len(every) - clip) / max(segments - 1, 1), 0.0)
    starts = [int(segment * step) for segment in range(segments)]
    return np.array([every[start : start + clip] for start in starts], np.int64)


def spread_indices(
    video_frames: int, clip: int, clips: int = 1, random: np.random.RandomState | None = None
) -> np.ndarray:
    """Indices (clips, clip): one frame from each of `clip` equal segments of the video.

    Of `clips` rows the first takes the frame at share 1 / (2 clips) of each segment, the next at
    3 / (2 clips) and so on; with `random` every frame lies anywhere in its segment.

    Raises:
        InputError: an empty video.
    """
    if video_frames < 1:
        raise InputError(f"the video must have at least one frame, got {video_frames}")
    if random is None:
        share = (np.arange(clips)[:, None] + 0.5) / clips
    else:
        share = random.rand(clips, clip)
    segment = video_frames / clip
    indices = np.floor((np.arange(clip) + share) * segment).astype(np.int64)
    return np.minimum(indices, video_frames - 1)


def three_crops(frames_CTHW: Tensor) -> Tensor:
    """(3, C, T, S, S): squares of the shorter side at the start, middle and end of the longer."""
    H, W = frames_CTHW.shape[2:]
    side, axis = min(H, W), 2 if H > W else 3
    starts = [int(i * (max(H, W) - side) / 2) for i in range(3)]
    return torch.stack([frames_CTHW.narrow(axis, start, side) for start in starts])


class VideoClassifier(nn.Module):
    """Frames -> `FramesToMap` -> image network -> logits.

    Args:
        backbone: a timm network; its classifier is replaced by one of K outputs.
        num_classes: K.
        frontend: frames to image; `FramesToMap()` if absent.

    Shape: (B, C, T, H, W) -> (B, K); (B, V, C, T, H, W), V views of each video -> (B, K), the
        logarithm of the mean of the views' probabilities
    """

    def __init__(self, backbone: nn.Module, num_classes: int, frontend: nn.Module | None = None):
        super().__init__()
        self.frontend = FramesToMap() if frontend is None else frontend
        self.backbone = backbone
        backbone.reset_classifier(num_classes)

    def forward(self, frames: Tensor) -> Tensor:
        if frames.ndim == 6:
            B, V = frames.shape[:2]
            logits = self.backbone(self.frontend(frames.flatten(0, 1))).unflatten(0, (B, V))
            return logits.log_softmax(2).logsumexp(1) - math.log(V)
        return self.backbone(self.frontend(frames))

    def example_input(self) -> Tensor:
        """Clips (2, C, 4, 32, 24), for `seewide.fuse`."""
        channels = getattr(self.backbone, "in_chans", 3)
        generator = torch.Generator().manual_seed(0)
        return torch.randn(2, channels, 4, 32, 24, generator=generator)


def checkpoint_filter_fn(state: Mapping[str, Tensor], model: VideoClassifier) -> dict[str, Tensor]:
    """The authors' state dict, which is that of their network, to ours; ours passes unchanged."""
    if any(key.startswith("backbone.") for key in state):
        return dict(state)
    return backbone_keys(model.backbone, state)
