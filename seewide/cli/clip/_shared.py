"""Arguments of the commands that evaluate a CLIP model."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import TYPE_CHECKING

from seewide.cli._parser import Parser

if TYPE_CHECKING:
    from seewide.vision_language.clip.model import Clip


def add_model(parser: Parser) -> None:
    """Declare the model, its weights and the device."""
    text = "A run folder of `seewide clip train`, or a configuration."
    parser.add("model", text, str, None, "RUN|CONFIG")
    parser.add("--weights", "A checkpoint, for a configuration.", Path, None, "FILE")
    parser.share("--device")


def load_model(arguments: Namespace) -> Clip:
    """The model of the command line."""
    from seewide.vision_language.clip.model import load_clip
    from seewide.vision_language.clip.train import device_name

    return load_clip(arguments.model, arguments.weights, device_name(arguments.device))
