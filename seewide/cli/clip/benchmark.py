"""`seewide clip benchmark`."""

from __future__ import annotations

import sys
from argparse import REMAINDER, Namespace
from collections.abc import Sequence
from typing import TYPE_CHECKING

from seewide.cli._parser import Parser

if TYPE_CHECKING:
    from torch import Tensor

DETAILS = """
clip-benchmark (`pip install clip-benchmark`) takes any model of open_clip by name; this
command makes it know ours, and passes everything on. A run folder is `local-dir:RUN`.

example:
  seewide clip benchmark eval --model local-dir:runs/clip --pretrained '' \\
    --dataset wds/flowers --dataset_root flowers_wds --output result.json
"""


def arguments(parser: Parser) -> None:
    parser.add("words", "Arguments of clip_benchmark.", str, None, "...", nargs=REMAINDER)


def run(arguments: Namespace) -> None:
    from seewide.errors import require
    from seewide.vision_language.clip.towers import register

    register()
    program = require("clip_benchmark.cli", "clip-benchmark")
    metrics = require("clip_benchmark.metrics.zeroshot_classification", "clip-benchmark")
    metrics.accuracy = accuracy
    words, sys.argv = sys.argv, ["clip_benchmark", *arguments.words]
    try:
        program.main()
    finally:
        sys.argv = words


def accuracy(scores_NK: Tensor, label_N: Tensor, topk: Sequence[int] = (1,)) -> list[float]:
    """Shares of images whose class is among the k best.

    clip-benchmark 1.6.2 turns an array of one element into a number, which NumPy no longer does.
    """
    order = scores_NK.topk(max(topk), dim=1).indices
    hit = order == label_N[:, None].to(order.device)
    return [float(hit[:, :k].any(1).double().mean()) for k in topk]
