"""`seewide report`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser, whole
from seewide.cli._subjects import load_subjects, needed
from seewide.console import bars, say

DETAILS = """
Compares cost, speed, receptive fields, shape bias and robustness. OUT/index.html needs no
network connection; all figures are also written as PNG and SVG, their numbers as CSV and
JSON. Shape bias and robustness need trained models.

examples:
  seewide report unireplknet_t.in1k convnext_tiny --data photos
  seewide report runs/a runs/b --data flowers/val --cue-conflict cue_conflict
  seewide report unireplknet_a pelk_t --data photos --random-weights
"""


def arguments(parser: Parser) -> None:
    parser.share("models", nargs="+")
    parser.share("--data")
    text = "The cue-conflict images of Geirhos et al., for shape bias."
    parser.add("--cue-conflict", text, Path, None, "DIR")
    parser.share("--image-size")
    parser.add("--images", "Number of images for receptive fields.", whole(1), 8)
    parser.add("--side", "Their side in pixels.", whole(32), 448)
    text = "Number of images for robustness, if DIR has the model's classes."
    parser.add("--labelled", text, whole(0), 10)
    parser.share("--random-weights")
    parser.add("--out", "Folder to write.", Path, Path("report"), "DIR")


def run(arguments: Namespace) -> None:
    from seewide.analysis.comparison import Comparison
    from seewide.analysis.images import list_images
    from seewide.analysis.shape_bias import list_cue_conflicts

    folder, labelled = needed(arguments.data, "images"), arguments.labelled
    found = len(list_images(folder))
    images = list_images(folder, min(arguments.images, found))
    conflicts = list_cue_conflicts(arguments.cue_conflict) if arguments.cue_conflict else []
    known = [(path, path.parent.name) for path in list_images(folder, min(labelled, found) or 1)]
    subjects = load_subjects(arguments)
    with bars() as progress:
        page = Comparison(
            subjects,
            arguments.out,
            images,
            arguments.side,
            conflicts,
            known if labelled else [],
            progress,
        ).write()
    say(f"written: {page}")
