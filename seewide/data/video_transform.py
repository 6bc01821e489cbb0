"""From a video to a clip of tensors: which frames, which crop, and augmentation.

All frames of a clip get the same crop, flip, colors and erased rectangle.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

import numpy as np
import torch
from PIL import Image
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms.v2 import functional

from seewide.errors import InputError

from .frames import Video
from .samples import Sample


class ClipTransform:
    """`{"video", "label"}` to `{"clip", "label"}`.

    `clip` is (C, T, S, S) in training and (V, C, T, S, S) in evaluation, V = clips x crops.

    Args:
        choose: number of frames of a video -> indices (clips, T) of those to show; in training of
            one clip.
        side: S in pixels.
        mean, std: of the normalization, for values in 0..1, per channel.
        crops: in evaluation, 1 central square of the shorter side, or 3 along the longer one.
        train: augment, with the arguments below.
        min_crop: least share of the area that the random crop takes.
        flip: probability of a horizontal flip.
        rand_augment: timm's words; empty: none.
        erase: probability that a rectangle becomes noise.

    Raises:
        InputError: words that timm does not know.
    """

    def __init__(
        self,
        choose: Callable[[Video], np.ndarray],
        side: int,
        mean: Sequence[float],
        std: Sequence[float],
        crops: int = 1,
        train: bool = False,
        min_crop: float = 0.08,
        flip: float = 0.5,
        rand_augment: str = "",
        erase: float = 0.0,
    ) -> None:
        self.choose, self.side, self.crops, self.train = choose, side, crops, train
        self.min_crop, self.flip = min_crop, flip
        self.mean_C, self.std_C = (torch.tensor(v)[:, None, None, None] for v in (mean, std))
        self.colors = self.erasing = None
        if train and rand_augment:
            fill = tuple(round(255 * float(value)) for value in mean)
            try:
                self.colors = rand_augment_transform(rand_augment, {"img_mean": fill})
            except (AssertionError, KeyError, ValueError, IndexError):
                raise InputError(f"timm does not take rand_augment {rand_augment!r}") from None
        if train and erase:
            self.erasing = RandomErasing(erase, mode="pixel", device="cpu")

    def __call__(self, sample: Sample) -> Sample:
        video: Video = sample["video"]
        indices_VT = self.choose(video)
        frames = video.read(indices_VT.flatten())
        clips = [self._clip(part) for part in np.split(frames, len(indices_VT))]
        if self.train:
            return {"clip": clips[0], "label": sample["label"]}
        views = [view for clip in clips for view in self._views(clip)]
        return {"clip": torch.stack(views), "label": sample["label"]}

    def _clip(self, frames_THWC: np.ndarray) -> Tensor:
        """One clip (C, T, H, W), normalized; augmented and (C, T, S, S) in training."""
        if self.colors is not None:
            frames_THWC = self._colored(frames_THWC)
        clip = torch.from_numpy(np.ascontiguousarray(frames_THWC)).permute(0, 3, 1, 2)
        if self.train:
            side = [self.side, self.side]
            box = RandomResizedCrop.get_params(clip, [self.min_crop, 1.0], [3 / 4, 4 / 3])
            clip = functional.resized_crop(clip, *box, side, antialias=True)
            if torch.rand(()) < self.flip:
                clip = clip.flip(3)
        else:
            clip = functional.resize(clip, [self.side], antialias=True)
        values = (clip.permute(1, 0, 2, 3).float() / 255 - self.mean_C) / self.std_C
        if self.erasing is not None:
            values = self.erasing(values.flatten(0, 1)).view_as(values)
        return values

    def _colored(self, frames_THWC: np.ndarray) -> np.ndarray:
        """RandAugment with the same random numbers for every frame."""
        states = random.getstate(), np.random.get_state()
        colored = []
        for frame in frames_THWC:
            random.setstate(states[0])
            np.random.set_state(states[1])
            colored.append(np.asarray(self.colors(Image.fromarray(frame))))
        return np.stack(colored)

    def _views(self, clip_CTHW: Tensor) -> list[Tensor]:
        """Squares of the shorter side: the central one, or three along the longer side."""
        H, W = clip_CTHW.shape[2:]
        side, axis = min(H, W), 2 if H > W else 3
        spare = max(H, W) - side
        shares = (0.5,) if self.crops == 1 else (0.0, 0.5, 1.0)
        return [clip_CTHW.narrow(axis, int(spare * share), side) for share in shares]
