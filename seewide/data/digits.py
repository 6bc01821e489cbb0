"""scikit-learn's copy of the UCI optical digits, which comes with that library."""

from __future__ import annotations

import numpy as np
from PIL import Image

from seewide.errors import require

from .images import ImageSamples


def open_digits() -> tuple[tuple[str, ...], ImageSamples]:
    """Class names and 1797 images of 8 x 8 pixels, in 17 levels of grey.

    Grey becomes three equal channels, so that a network also takes any other image.

    Raises:
        InputError: scikit-learn is not installed.
    """
    require("sklearn", extra="digits")
    from sklearn.datasets import load_digits

    content = load_digits()
    grey_NHW = np.rint(content.images * (255 / 16)).astype(np.uint8)
    images = [Image.fromarray(grey_HW).convert("RGB") for grey_HW in grey_NHW]
    names = [f"digits/{index}" for index in range(len(images))]
    class_names = tuple(str(name) for name in content.target_names)
    return class_names, ImageSamples(images, content.target, names)
