"""`seewide clip zeroshot`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._files import write_json
from seewide.cli._parser import Parser
from seewide.cli.clip._shared import add_model, load_model
from seewide.console import print_facts, print_table, say

DETAILS = """
The data have one folder of images per class, or val/ with them. Class names and templates
come from text files, one a line, `{c}` for the name; files classnames.txt and
zeroshot_classification_templates.txt in the data are used, as clip-benchmark has them.

examples:
  seewide clip zeroshot runs/clip --data flowers
  seewide clip zeroshot runs/clip --data pets --classnames names.txt --templates templates.txt
"""


def arguments(parser: Parser) -> None:
    add_model(parser)
    parser.add("--data", "A folder of classes.", Path, None, "DIR", required=True)
    parser.add("--classnames", "Names, in the order of the folders.", Path, None, "FILE")
    parser.add("--templates", "Sentences with {c} for the name.", Path, None, "FILE")
    parser.add("--out", "Also write the numbers as JSON.", Path, None, "FILE")


def run(arguments: Namespace) -> None:
    from seewide.vision_language.clip.zeroshot import zero_shot

    clip = load_model(arguments)
    report = zero_shot(clip, arguments.data, arguments.classnames, arguments.templates)
    print_facts(
        images=report.images,
        top_1=f"{report.top1:.2f}%",
        top_5=f"{report.top5:.2f}%",
        mean_per_class=f"{report.mean_per_class:.2f}%",
    )
    if len(report.classes) <= 20:
        rows = [
            (name, *row)
            for name, row in zip(report.classes, report.confusion_KK.tolist(), strict=True)
        ]
        print_table("images of a class (row) by the name found", ("", *report.classes), rows)
    if arguments.out is not None:
        content = {
            "model": arguments.model,
            "data": arguments.data.name,
            "images": report.images,
            "acc1": report.top1,
            "acc5": report.top5,
            "mean_per_class_recall": report.mean_per_class,
            "classes": report.classes,
            "confusion": report.confusion_KK.tolist(),
        }
        say(f"written: {write_json(arguments.out, content)}")
