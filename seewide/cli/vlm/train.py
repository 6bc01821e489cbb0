"""`seewide vlm train`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser, whole
from seewide.console import print_facts, say
from seewide.errors import InputError

DETAILS = """
The data are LLaVA's JSON. Conversations whose image cannot be read are left out, counted and
named. Several GPUs: torchrun -m seewide vlm train ...

examples:
  seewide vlm train runs/vlm-0 --data captions.json --recipe llava15_projector --out runs/vlm-1
  seewide vlm train runs/vlm-1 --data llava_v1_5_mix665k.json --images data \\
    --recipe llava15_instruct --out runs/vlm-2
"""


def arguments(parser: Parser) -> None:
    parser.add("model", "A folder of `seewide vlm build` or of an earlier stage.", str)
    parser.add("--data", "Conversations in LLaVA's JSON.", Path, None, "FILE", required=True)
    parser.add("--images", "Where image paths start.", Path, None, "DIR")
    parser.add("--recipe", "The stage; `seewide vlm recipes` lists them.", str, "llava15_projector")
    parser.add("--set", "Change a setting; may be repeated.", str, [], "KEY=VALUE", action="append")
    parser.add("--out", "Folder of the trained model.", Path, None, "DIR", required=True)
    parser.add("--resume", "Continue from the last checkpoint in --out.", bool)
    parser.add("--workers", "Processes that read images.", whole(0), 2)
    parser.add("--seed", "Seed of the random numbers.", whole(0), 0)
    parser.share("--device")


def run(arguments: Namespace) -> None:
    from seewide.options import replace
    from seewide.vision_language.vlm.build import load_vlm
    from seewide.vision_language.vlm.conversations import ConversationData, read_conversations
    from seewide.vision_language.vlm.recipes import get_recipe
    from seewide.vision_language.vlm.train import train

    for word in arguments.set:
        if "=" not in word:
            raise InputError(f"--set must be KEY=VALUE, got {word!r}")
    changes = dict(word.split("=", 1) for word in arguments.set)
    recipe = replace(get_recipe(arguments.recipe), changes)
    found, skipped = read_conversations(arguments.data, arguments.images)
    say(f"{len(found)} conversations")
    if skipped:
        say(f"{len(skipped)} skipped: {skipped}")
    vlm = load_vlm(arguments.model)
    facts = train(
        vlm,
        ConversationData(found, vlm),
        recipe,
        arguments.out,
        seed=arguments.seed,
        workers=arguments.workers,
        resume=arguments.resume,
        use_cpu=arguments.device == "cpu",
    )
    print_facts(loss=f"{facts['loss']:.4f}", conversations_cut=int(facts["cut"]))
    say(f"written: {arguments.out}")
