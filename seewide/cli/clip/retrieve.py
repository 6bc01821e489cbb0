"""`seewide clip retrieve`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._files import write_json
from seewide.cli._parser import Parser
from seewide.cli.clip._shared import add_model, load_model
from seewide.console import print_table, say

DETAILS = """
Recall@k in percent: text to image looks for the caption's image, image to text for any of
the image's captions. DATA as in `seewide clip train`, without tar files.

examples:
  seewide clip retrieve runs/clip --data flickr8k
  seewide clip retrieve runs/clip --data flickr8k/val.csv --out recall.json
"""


def arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add("--data", "Images with captions.", str, None, "DATA", required=True)
    parser.add("--split", "The split, where the data have several.", str, "val", "train|val")
    parser.add("--out", "Also write the numbers as JSON.", Path, None, "FILE")


def run(arguments: Namespace) -> None:
    from dataclasses import asdict

    from seewide.vision_language.clip.retrieval import RANKS, retrieve
    from seewide.vision_language.pairs import read_pairs

    pairs = read_pairs(arguments.data, arguments.split)
    if pairs.skipped:
        say(f"{len(pairs.skipped)} pairs skipped: {pairs.skipped}")
    report = retrieve(load_model(arguments), pairs)
    rows = []
    for name, recall in (
        ("text to image", report.text_to_image),
        ("image to text", report.image_to_text),
    ):
        rows.append((name, *(f"{recall.at[k]:.1f}" for k in RANKS), recall.median_rank))
        rows.append(("  chance", *(f"{recall.chance[k]:.1f}" for k in RANKS), None))
    columns = ("", *(f"R@{k}" for k in RANKS), "median rank")
    print_table(f"{report.images} images, {report.captions} captions", columns, rows)
    if arguments.out is not None:
        content = {"model": arguments.model, **asdict(report)}
        say(f"written: {write_json(arguments.out, content)}")
