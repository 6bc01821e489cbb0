"""`seewide clip benchmark`."""

from __future__ import annotations

import sys
from argparse import REMAINDER, Namespace

from seewide.cli._parser import Parser

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
    words, sys.argv = sys.argv, ["clip_benchmark", *arguments.words]
    try:
        program.main()
    finally:
        sys.argv = words
