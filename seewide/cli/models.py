"""`seewide models`."""

from __future__ import annotations

from argparse import Namespace

from seewide.cli._output import console, show_table
from seewide.cli._parser import Parser
from seewide.errors import unknown

DETAILS = """
All other models of timm can be trained, evaluated and exported as well.

examples:
  seewide models
  seewide models "*_t"
"""


def arguments(parser: Parser) -> None:
    """Declare the arguments."""
    parser.add("pattern", nargs="?", default="*", help="Models to list, such as 'unireplknet_*'.")


def run(arguments: Namespace) -> None:
    """Print the table, smallest model first."""
    import timm
    import torch
    from timm.models import get_arch_pretrained_cfgs

    from seewide.models import list_models
    from seewide.reparam import fuse
    from seewide.console import track

    names = list_models(arguments.pattern)
    if not names:
        raise unknown("model", arguments.pattern, list_models())
    rows = []
    for name in track(names, "counting", console()):
        with torch.device("meta"):
            model = timm.create_model(name)
            fused = fuse(model)
        sizes = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (model, fused)]
        weights = get_arch_pretrained_cfgs(name).items()
        tags = [full.partition(".")[2] for full, config in weights if config.has_weights]
        side = model.pretrained_cfg["input_size"][-1]
        rows.append((name, *sizes, side, ", ".join(filter(None, tags)) or None))
    show_table(
        "",
        ("model", "M parameters", "fused", "px", "weights"),
        [
            (name, f"{size:.1f}", f"{fused:.1f}", *rest)
            for name, size, fused, *rest in sorted(rows, key=lambda row: row[1])
        ],
    )
