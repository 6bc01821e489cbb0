"""`seewide vlm caption`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._files import write_csv
from seewide.cli._parser import Parser, whole
from seewide.cli.predict import find_files
from seewide.console import complain, say
from seewide.errors import InputError

DETAILS = """
examples:
  seewide vlm caption runs/vlm photos --out captions.csv
  seewide vlm caption runs/vlm rose.jpg --question "Which colour is the flower?"
"""


def arguments(parser: Parser) -> None:
    parser.add("model", "A folder of a vision-language model.", str)
    parser.add("inputs", "Files, folders, patterns, or `-`.", metavar="INPUT", nargs="+")
    parser.add("--question", "What to ask.", str, "Describe the image in one sentence.")
    parser.add("--most", "Longest answer in tokens.", whole(1), 64)
    parser.add("--out", "Also write the answers as CSV.", Path, None, "FILE")


def run(arguments: Namespace) -> int:
    from seewide.data.images import read_image
    from seewide.vision_language.vlm.answer import ask
    from seewide.vision_language.vlm.build import load_vlm

    vlm = load_vlm(arguments.model)
    rows, unreadable = [], 0
    for path in find_files(arguments.inputs):
        try:
            text = ask(vlm, arguments.question, read_image(path), arguments.most)
        except InputError as error:
            complain(error)
            unreadable += 1
            continue
        rows.append((path, text))
        say(f"{path}: {text}")
    if arguments.out is not None:
        say(f"written: {write_csv(arguments.out, ('image', 'caption'), rows)}")
    return 2 if unreadable else 0
