"""A network to look at, with what is needed to show it pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from PIL import Image
from timm.data.constants import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from torch import Tensor, nn
from torchvision.transforms.functional import InterpolationMode, center_crop, resize

from seewide.analysis.images import normalized

Progress = Callable[[str, int], Callable[[], object]]  # (what, steps) -> called after each step


@dataclass(frozen=True)
class Subject:
    """A network to look at.

    Attributes:
        name: what pages and tables call it.
        model: images -> classes.
        side: of its pictures in pixels.
        crop_pct: share of the resized short side that the square in its middle keeps.
        mean, std: of the normalization that it was trained with.
        trained: whether its weights were learned; without, only what the architecture says counts.
        class_names: of its outputs, if known.
        metrics: epochs of its training, as `pictures.draw_curves` takes them.
    """

    name: str
    model: nn.Module
    side: int = 224
    crop_pct: float = 0.875
    mean: Sequence[float] = IMAGENET_DEFAULT_MEAN
    std: Sequence[float] = IMAGENET_DEFAULT_STD
    trained: bool = False
    class_names: Sequence[str] = ()
    metrics: Sequence[Mapping[str, float]] = ()

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one picture, as the network takes it."""
        return 1, 3, self.side, self.side

    def crop(self, picture: Image.Image) -> Image.Image:
        """As in evaluation: resized, then the middle."""
        short = resize(picture, int(self.side / self.crop_pct), InterpolationMode.BICUBIC)
        return center_crop(short, [self.side, self.side])

    def normalize(self, picture: Image.Image) -> Tensor:
        """(3, H, W), of whatever size it has."""
        return normalized(picture, None, self.mean, self.std)

    def prepare(self, picture: Image.Image) -> Tensor:
        """Cropped and normalized."""
        return self.normalize(self.crop(picture))

    def classes(self) -> int:
        """How many the network tells apart."""
        with torch.inference_mode():
            return self.model.eval()(torch.zeros(self.shape)).shape[1]
