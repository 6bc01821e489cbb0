"""`seewide vlm grounding`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._parser import Parser
from seewide.console import print_facts

DETAILS = """
Negative log-likelihood per token of the right answers, with the right image and with that of
another conversation, and the share of conversations in which the right image is better.

example:
  seewide vlm grounding runs/vlm --data flowers_val.json
"""


def arguments(parser: Parser) -> None:
    parser.add("model", "A folder of a vision-language model.", str)
    parser.add("--data", "Conversations in LLaVA's JSON.", Path, None, "FILE", required=True)
    parser.add("--images", "Where image paths start.", Path, None, "DIR")


def run(arguments: Namespace) -> None:
    from seewide.vision_language.vlm.answer import grounding
    from seewide.vision_language.vlm.build import load_vlm
    from seewide.vision_language.vlm.conversations import read_conversations

    found, _ = read_conversations(arguments.data, arguments.images)
    report = grounding(load_vlm(arguments.model), found)
    print_facts(
        conversations=report.conversations,
        right_image=f"{report.right:.4f} nats per token",
        another_image=f"{report.wrong:.4f} nats per token",
        right_is_better=f"{100 * report.better:.1f}%",
        sign_test=f"p = {report.p_value:.2g}",
    )
