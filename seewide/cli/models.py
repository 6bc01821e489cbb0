"""`seewide models`."""

from __future__ import annotations

from argparse import Namespace

from seewide.cli._parser import Parser
from seewide.console import make_console, print_table, track
from seewide.errors import unknown

DETAILS = """
All other models of timm can be trained, evaluated and exported as well.

examples:
  seewide models
  seewide models "*_t"
"""


def arguments(parser: Parser) -> None:
    parser.add("pattern", "Models to list, such as 'unireplknet_*'.", nargs="?", metavar="PATTERN")


def run(arguments: Namespace) -> None:
    import timm
    import torch
    from timm.models import get_arch_pretrained_cfgs

    from seewide.models import list_models
    from seewide.reparam import fuse

    names = list_models(arguments.pattern or "*")
    if not names:
        raise unknown("model", arguments.pattern, list_models())
    rows = []
    for name in track(names, "counting", make_console()):
        with torch.device("meta"):
            model = timm.create_model(name)
            fused = fuse(model)
        sizes = [sum(p.numel() for p in m.parameters()) / 1e6 for m in (model, fused)]
        weights = get_arch_pretrained_cfgs(name).items()
        tags = [full.partition(".")[2] for full, config in weights if config.has_weights]
        side = model.pretrained_cfg["input_size"][-1]
        rows.append((sizes, (name, *(f"{n:.1f}" for n in sizes), side, ", ".join(tags) or "-")))
    columns = ("model", "M parameters", "fused", "px", "weights")
    print_table("", columns, [row for _, row in sorted(rows)])
