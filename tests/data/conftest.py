"""What the tests of `seewide.data` share."""

from __future__ import annotations

import pytest
from image_files import paint


@pytest.fixture
def images(tmp_path):
    """A folder of 24 images in three class folders."""
    return paint(tmp_path / "images_by_class")
