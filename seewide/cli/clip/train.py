"""`seewide clip train`."""

from __future__ import annotations

from argparse import SUPPRESS, Namespace
from dataclasses import fields
from pathlib import Path

from seewide.cli._parser import Parser, given, whole
from seewide.console import say
from seewide.errors import InputError, unknown
from seewide.options import replace
from seewide.vision_language.clip.recipes import RECIPES, ClipRecipe, get_recipe

DETAILS = """
DATA is a table (CSV, TSV; the separator is found), a folder of images with .txt files,
Flickr's or COCO's JSON, a folder with train and val of one of these, or tar files of
webdataset ('shards/{0000..0127}.tar', 'shards/*.tar'). Pairs that cannot be read are left
out, counted and named.

examples:
  seewide clip train laptop --data flickr8k --out runs/clip
  seewide clip train clip_unireplknet_t --data pairs.csv --out runs/clip --set precision=fp32
  seewide clip train laptop --data flowers --tower runs/unireplknet_a-flowers --set lock_image=true
  seewide clip train --resume runs/clip
  torchrun --nproc-per-node 8 -m seewide clip train paper_l --data 'shards/*.tar' --out runs/l

A killed run loses the epoch in progress. A resumed one draws other random numbers than an
uninterrupted one, as open_clip has it.
"""


def arguments(parser: Parser) -> None:
    text = "A recipe, or a configuration with the default recipe."
    parser.add("recipe", text, str, SUPPRESS, "RECIPE|CONFIG", nargs="?")
    parser.add("--data", "Images with captions, see below.", str, None, "DATA")
    parser.add("--set", "Change a setting; may be repeated.", str, [], "KEY=VALUE", action="append")
    parser.add("--out", "Run folder. Default: runs/RECIPE-DATA.", Path, None, "DIR")
    parser.add("--tower", "A run or weights that the image tower starts from.", Path, None, "RUN")
    parser.add("--resume", "Continue a stopped run.", Path, None, "RUN")
    parser.add("--workers", "Processes that read images.", whole(0), 2)
    parser.add("--seed", "Seed of the random numbers.", whole(0), 0)
    parser.add("--trust-images", "Do not decode every image once before training.", bool)
    parser.add_options("recipe", ClipRecipe)
    parser.share("--device")


def run(arguments: Namespace) -> None:
    from seewide.vision_language.clip.train import device_name, train

    how = {
        "workers": arguments.workers,
        "seed": arguments.seed,
        "device": device_name(arguments.device),
        "say": say,
    }
    if arguments.resume is not None:
        written = train(None, "", arguments.resume, resume=True, **how)
    else:
        recipe, name = chosen_recipe(arguments)
        if arguments.data is None:
            raise InputError("--data is required: a table, a folder, JSON or tar files of pairs")
        out = arguments.out or Path("runs") / f"{name}-{Path(arguments.data).stem}"
        written = train(
            recipe,
            arguments.data,
            out,
            start=arguments.tower,
            check_images=not arguments.trust_images,
            **how,
        )
    say(f"written: {written}")


def chosen_recipe(arguments: Namespace) -> tuple[ClipRecipe, str]:
    """The recipe of the command line with its changes, and its name."""
    name = vars(arguments).get("recipe", "default")
    if name in RECIPES:
        recipe = get_recipe(name)
    else:
        from seewide.vision_language.clip.towers import config_names, get_config

        if name not in config_names():
            try:
                get_config(name)  # one of open_clip's own
            except InputError:
                raise unknown(
                    "recipe or configuration", name, [*RECIPES, *config_names()]
                ) from None
        recipe = replace(get_recipe("default"), {"config": name})
    return replace(recipe, given(arguments, ClipRecipe) | settings(arguments.set)), name


def settings(words: list[str]) -> dict[str, str]:
    """`["lr=1e-3"]` as a dict."""
    for word in words:
        if "=" not in word:
            known = ", ".join(field.name for field in fields(ClipRecipe))
            raise InputError(f"--set must be KEY=VALUE, got {word!r}; keys are {known}")
    return dict(word.split("=", 1) for word in words)
