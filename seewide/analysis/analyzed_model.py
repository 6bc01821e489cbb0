"""A model to analyze, with its preprocessing, class names and training curves."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch
from PIL import Image
from torch import Tensor, nn

from seewide.preprocess import Preprocess

# progress(description, total) returns a function that is called after each step.
Progress = Callable[[str, int], Callable[[], object]]


def no_progress(description: str, total: int) -> Callable[[], object]:
    """A `Progress` that shows nothing."""
    return lambda: None


@dataclass(frozen=True)
class AnalyzedModel:
    """A classifier and what is needed to feed it images.

    Attributes:
        name: shown in tables and figures.
        model: (N, 3, H, W) -> (N, classes).
        preprocess: the evaluation preprocessing of the model.
        trained: whether the weights are trained; shape bias and robustness are measured only then.
        class_names: names of the outputs, if known.
        metrics: one mapping per epoch of the training, see `figures.draw_curves`.
    """

    name: str
    model: nn.Module
    preprocess: Preprocess = field(default_factory=Preprocess)
    trained: bool = False
    class_names: Sequence[str] = ()
    metrics: Sequence[Mapping[str, float]] = ()

    @property
    def image_size(self) -> int:
        """Height and width of the input in pixels."""
        return self.preprocess.image_size

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """Shape of a batch of one image."""
        return 1, 3, self.image_size, self.image_size

    def crop(self, image: Image.Image) -> Image.Image:
        """The resizing and cropping of the evaluation preprocessing."""
        return self.preprocess.crop(image)

    def normalize(self, image: Image.Image) -> Tensor:
        """RGB image of any size -> (3, H, W), normalized."""
        return self.preprocess.normalize(image)

    def prepare(self, image: Image.Image) -> Tensor:
        """The whole evaluation preprocessing: RGB image -> (3, image_size, image_size)."""
        return self.preprocess.transform()(image)

    def resizing(self, size: int | None = None) -> Callable[[Image.Image], Tensor]:
        """A transform without cropping: RGB image -> (3, size, size), normalized.

        The image is resized on both sides (bicubic), as for effective receptive fields and for
        the published images of ImageNet-C, which are cropped already.

        Args:
            size: in pixels; default: `image_size`.
        """
        changes = {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bicubic"}
        return replace(self.preprocess, image_size=size or self.image_size, **changes).transform()

    def num_classes(self) -> int:
        """Number of outputs, by a forward pass of zeros."""
        with torch.inference_mode():
            return self.model.eval()(torch.zeros(self.shape)).shape[1]
