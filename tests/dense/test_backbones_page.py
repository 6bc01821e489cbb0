"""The code of docs/backbones.md runs."""

import re
import warnings
from pathlib import Path

import pytest

PAGE = Path(__file__).parents[2] / "docs" / "backbones.md"


def test_code_of_the_page_runs():
    pytest.importorskip("segmentation_models_pytorch")
    pytest.importorskip("transformers", minversion="5")
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    assert len(blocks) == 4
    names: dict = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in blocks:
            exec(block, names)
    assert names["backbone"].feature_info.channels() == [40, 80, 160, 320]
    assert set(names["found"][0]) == {"boxes", "labels", "scores"}
    assert names["smp"]
    assert names["model"]
