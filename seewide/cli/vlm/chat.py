"""`seewide vlm chat`."""

from __future__ import annotations

import sys
from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser, whole
from seewide.console import say

DETAILS = """
Reads a question per line; an empty line or the end of the input ends the conversation.

examples:
  seewide vlm chat runs/vlm --image rose.jpg
  echo "Which flower is this?" | seewide vlm chat runs/vlm --image rose.jpg
"""


def arguments(parser: Parser) -> None:
    parser.add("model", "A folder of a vision-language model.", str)
    parser.add("--image", "What to talk about.", Path, None, "FILE")
    parser.add("--most", "Longest answer in tokens.", whole(1), 256)


def run(arguments: Namespace) -> None:
    from seewide.data.images import read_image
    from seewide.vision_language.vlm.answer import answer
    from seewide.vision_language.vlm.build import IMAGE_TOKEN, load_vlm

    vlm = load_vlm(arguments.model)
    image = None if arguments.image is None else read_image(arguments.image)
    messages: list[dict[str, str]] = []
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        if prompt:
            print(prompt, end="", flush=True)
        if not (question := sys.stdin.readline().strip()):
            return
        mark = f"{IMAGE_TOKEN}\n" if image is not None and not messages else ""
        messages.append({"role": "user", "content": mark + question.replace(IMAGE_TOKEN, "")})
        text = answer(vlm, messages, image, arguments.most)
        messages.append({"role": "assistant", "content": text})
        say(text)
