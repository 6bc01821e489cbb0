"""A network to look at, with what is needed to show it pictures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from PIL import Image
from torch import Tensor, nn

from seewide.preprocess import Preprocess

Progress = Callable[[str, int], Callable[[], object]]  # (what, steps) -> called after each step


@dataclass(frozen=True)
class Subject:
    """A network to look at.

    Attributes:
        name: what pages and tables call it.
        model: images -> classes.
        preprocess: what an image goes through before it, in evaluation as here.
        trained: whether its weights were learned; without, only what the architecture says counts.
        class_names: of its outputs, if known.
        metrics: epochs of its training, as `pictures.draw_curves` takes them.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess = field(default_factory=Preprocess)
    trained: bool = False
    class_names: Sequence[str] = ()
    metrics: Sequence[Mapping[str, float]] = ()

    @property
    def side(self) -> int:
        """Height and width of its images in pixels."""
        return self.preprocess.image_size

    @property
    def mean(self) -> Sequence[float]:
        """Of the normalization, per channel."""
        return self.preprocess.mean

    @property
    def std(self) -> Sequence[float]:
        """Of the normalization, per channel."""
        return self.preprocess.std

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Of one picture, as the network takes it."""
        return 1, 3, self.side, self.side

    def crop(self, picture: Image.Image) -> Image.Image:
        """As in evaluation: resized and cropped, or squashed."""
        return self.preprocess.crop(picture)

    def normalize(self, picture: Image.Image) -> Tensor:
        """(3, H, W), of whatever size it has."""
        return self.preprocess.normalize(picture)

    def prepare(self, picture: Image.Image) -> Tensor:
        """Cropped and normalized."""
        return self.normalize(self.crop(picture))

    def classes(self) -> int:
        """How many the network tells apart."""
        with torch.inference_mode():
            return self.model.eval()(torch.zeros(self.shape)).shape[1]
