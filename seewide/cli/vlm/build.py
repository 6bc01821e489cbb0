"""`seewide vlm build`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser, whole
from seewide.console import print_facts, say
from seewide.errors import InputError, require

DETAILS = """
LANGUAGE is a folder or a name on the Hugging Face hub of any causal language model, or
`random`: a small one of random weights whose words are those of the conversations in --texts.

examples:
  seewide vlm build unireplknet_l lmsys/vicuna-7b-v1.5 --image-size 768 --template vicuna \\
    --tower runs/clip/tower.safetensors --out runs/vlm
  seewide vlm build unireplknet_a random --texts flowers.json --image-size 64 --out runs/vlm
"""


def arguments(parser: Parser) -> None:
    parser.add("model", "Image tower by its timm name.", str, None, "TOWER")
    parser.add("language", "The language model.", str, None, "LANGUAGE")
    parser.add("--tower", "A run or weights of the tower.", Path, None, "RUN")
    parser.add("--image-size", "Side of the images, a multiple of 32.", whole(32), 384)
    parser.add("--template", "Chat template, if the tokenizer has none: vicuna.", str, "", "NAME")
    parser.add("--texts", "Conversations whose words `random` knows.", Path, None, "FILE")
    parser.add("--out", "Folder of the model.", Path, None, "DIR", required=True)


def run(arguments: Namespace) -> None:
    from seewide.vision_language.vlm.build import build_vlm

    template = arguments.template
    if arguments.language == "random":
        from seewide.vision_language.pairs import read_json
        from seewide.vision_language.vlm.small import small_language_model

        if arguments.texts is None:
            raise InputError("`random` needs --texts, the conversations whose words it knows")
        turns = [t["value"] for entry in read_json(arguments.texts) for t in entry["conversations"]]
        language, tokenizer = small_language_model([*turns, "USER: ASSISTANT:"])
        template = template or "vicuna"
    else:
        transformers = require("transformers", "vlm")
        language = transformers.AutoModelForCausalLM.from_pretrained(arguments.language)
        tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.language)
    vlm = build_vlm(
        arguments.model,
        language,
        tokenizer,
        arguments.image_size,
        tower_weights=arguments.tower,
        template=template,
    )
    parts = {
        "tower": vlm.tower,
        "projector": vlm.model.model.multi_modal_projector,
        "language": vlm.model.model.language_model,
    }
    print_facts(
        image_tokens=vlm.image_tokens,
        **{
            name: f"{sum(p.numel() for p in part.parameters()) / 1e6:.1f} M parameters"
            for name, part in parts.items()
        },
    )
    say(f"written: {vlm.save(arguments.out)}")
