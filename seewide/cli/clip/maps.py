"""`seewide clip maps`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.cli.clip._shared import add_model, load_model
from seewide.console import say
from seewide.errors import InputError

DETAILS = """
With one image: a map for each text, the cosine of the projected cells of the last feature
map. With several images: the matrix of images and texts.

examples:
  seewide clip maps runs/clip --images dog.jpg --texts "a dog" grass sky --out maps.png
  seewide clip maps runs/clip --images *.jpg --texts "a dog" "a beach" --out matrix.png
"""


def arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add("--images", "Image files.", Path, None, "FILE", nargs="+", required=True)
    parser.add("--texts", "Words or captions.", str, None, "TEXT", nargs="+", required=True)
    parser.add("--out", "The figure.", Path, Path("maps.png"), "FILE")


def run(arguments: Namespace) -> None:
    from seewide.data.images import read_image
    from seewide.vision_language.clip.maps import draw_maps, draw_matrix

    if len(arguments.images) > 40 or len(arguments.texts) > 40:
        raise InputError("a figure has room for 40 images and 40 texts")
    clip = load_model(arguments)
    images = [read_image(path) for path in arguments.images]
    if len(images) == 1:
        written = draw_maps(clip, images[0], arguments.texts, arguments.out)
    else:
        written = draw_matrix(clip, images, arguments.texts, arguments.out)
    say(f"written: {written}")
