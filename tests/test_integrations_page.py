"""Every block of docs/integrations.md runs with its library; nothing of ours is needed in it."""

from __future__ import annotations

import re
import warnings
from pathlib import Path

import pytest

PAGE = (Path(__file__).parents[1] / "docs" / "integrations.md").read_text()
BLOCKS = dict(re.findall(r"^## (.*?)\n.*?```python\n(.*?)```", PAGE, re.S | re.M))
HEAVY = ("RT-DETRv2", "D-FINE", "DETR", "Mask2Former", "FastVLM")  # seconds each
MODULES = ("segmentation_models_pytorch", "open_clip", "transformers", "peft", "captum")


def test_every_library_has_a_block():
    assert len(BLOCKS) == PAGE.count("\n## ") == PAGE.count("```python") == 13


@pytest.mark.parametrize(
    "title",
    [
        pytest.param(title, marks=pytest.mark.slow if title.endswith(HEAVY) else ())
        for title in BLOCKS
    ],
)
def test_block(title, monkeypatch):
    block = BLOCKS[title]
    for module in MODULES:
        if re.search(rf"^(import|from) {module}\b", block, re.M):
            pytest.importorskip(module)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert "seewide." not in block
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries
        exec(compile(block, title, "exec"), {})
