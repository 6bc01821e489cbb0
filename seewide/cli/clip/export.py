"""`seewide clip export`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.cli.clip._shared import add_model, load_model
from seewide.console import say

DETAILS = """
image.onnx takes images (N, 3, H, W), text.onnx tokens (N, L); both give embeddings of length
1. The image tower is fused.

example:
  seewide clip export runs/clip --out onnx
"""


def arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add("--out", "Folder of the files.", Path, Path("onnx"), "DIR")


def run(arguments: Namespace) -> None:
    from seewide.vision_language.export import export_clip

    clip = load_model(arguments)
    for file in export_clip(clip.model, arguments.out, clip.model.context_length):
        say(f"written: {file.path}, largest relative deviation {file.deviation:.1e}")
