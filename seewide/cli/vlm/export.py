"""`seewide vlm export`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.console import say

DETAILS = """
tower.onnx takes images (N, 3, H, W) and gives the inputs (N, tokens, width) of the language
model. The tower is fused.

example:
  seewide vlm export runs/vlm --out onnx
"""


def arguments(parser: Parser) -> None:
    parser.add("model", "A folder of a vision-language model.", str)
    parser.add("--out", "Folder of the file.", Path, Path("onnx"), "DIR")


def run(arguments: Namespace) -> None:
    from math import isqrt

    from seewide.vision_language.export import export_tower
    from seewide.vision_language.vlm.build import STRIDE, load_vlm

    vlm = load_vlm(arguments.model)
    side = STRIDE * isqrt(vlm.image_tokens)
    for file in export_tower(vlm.model, arguments.out, side):
        say(f"written: {file.path}, largest relative deviation {file.deviation:.1e}")
