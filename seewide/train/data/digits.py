"""scikit-learn's copy of the UCI optical digits, which everybody has."""

from __future__ import annotations

import numpy as np
from PIL import Image

from seewide.errors import require
from seewide.train.data.split import Split, Unsplit


def open_digits() -> Unsplit:
    """1797 digits of 8x8 px, 17 levels of grey.

    Grey becomes three equal channels, so that the network also takes any other picture.
    """
    require("sklearn", extra="digits")
    from sklearn.datasets import load_digits

    content = load_digits()
    grey_NHW = np.rint(content.images * (255 / 16)).astype(np.uint8)
    pictures = [Image.fromarray(grey_HW).convert("RGB") for grey_HW in grey_NHW]
    class_names = tuple(str(name) for name in content.target_names)
    return Unsplit("digits", class_names, Split(pictures, content.target), None)
