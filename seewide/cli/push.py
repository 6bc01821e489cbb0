"""`seewide push`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.console import say

DETAILS = """
The folder has config.json, model.safetensors, README.md (the model card: results, curves,
recipe, how to load) and a small file by which transformers finds seewide. `seewide eval
RUN` before it adds the table of classes and the confusion matrix.

Log in with `hf auth login`, or set HF_TOKEN.

examples:
  seewide push runs/unireplknet_a-flowers me/flowers --license apache-2.0
  seewide push runs/unireplknet_a-flowers me/flowers --dry-run
"""


def arguments(parser: Parser) -> None:
    parser.add("run", "A run folder of classification.", Path, metavar="RUN")
    parser.add("repository", "On the hub.", metavar="OWNER/NAME")
    parser.add("--private", "A new repository is private.", bool)
    parser.add("--dry-run", "Write the folder and upload nothing.", bool)
    parser.add("--license", "Of the weights, as the hub spells it.", str, "other")
    parser.add("--out", "The folder to write. Default: RUN/hub.", Path, metavar="DIR")


def run(arguments: Namespace) -> None:
    from seewide.hub import push_to_hub
    from seewide.hub.run import save_run

    repository = arguments.repository
    folder = save_run(arguments.run, arguments.out, repository, arguments.license)
    say(f"written: {folder}")
    if arguments.dry_run:
        say(f"nothing was uploaded; without --dry-run, {repository} would get these files")
        return
    say(f"uploaded: {push_to_hub(folder, repository, private=arguments.private)}")
