"""`seewide clip configs`."""

from __future__ import annotations

from argparse import Namespace

from seewide.cli._parser import Parser
from seewide.console import print_table

DETAILS = """
example:
  seewide clip configs
"""


def arguments(parser: Parser) -> None:
    """No arguments."""


def run(arguments: Namespace) -> None:
    import torch

    from seewide.vision_language.clip.towers import (
        config_names,
        count_parameters,
        create,
        get_config,
    )

    rows = []
    for name in config_names():
        config = get_config(name)
        with torch.device("meta"):
            sizes = count_parameters(create(name, load_weights=False, device="meta"))
        text = config["text_cfg"]
        rows.append(
            (
                name,
                config["vision_cfg"]["image_size"],
                config["embed_dim"],
                f"{text['width']} x {text['layers']}",
                *(f"{sizes[part] / 1e6:.1f}" for part in ("image", "text", "total")),
            )
        )
    columns = ("configuration", "px", "embedding", "text tower", "image M", "text M", "total M")
    print_table("", columns, rows, no_wrap=True)
