"""The stages of LLaVA-1.5 as data.

The paper names LLaVA-1.5 as its baseline, the data of its two stages and Vicuna-7B, and prints no
settings; these are those of LLaVA-1.5's published scripts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seewide.errors import InputError, unknown
from seewide.options import check, option

PARTS = ("projector", "projector+language", "all")


@dataclass(frozen=True)
class VlmRecipe:
    """Settings of one stage.

    Raises:
        InputError: a value out of range.
    """

    train: str = option("projector", "What is trained.", choices=PARTS)
    lora_rank: int = option(
        0, "Train the language model by LoRA of this rank (0: all its weights).", least=0
    )
    epochs: float = option(1.0, "Number of epochs.", above=0)
    batch_size: int = option(256, "Conversations per optimizer step, over all devices.", least=1)
    device_batch: int = option(
        8, "Conversations that a device processes at once; the rest accumulate.", least=1
    )
    lr: float = option(1e-3, "Peak learning rate.", above=0)
    warmup: float = option(0.03, "Share of the steps in the linear warm-up.", least=0, below=1)
    weight_decay: float = option(0.0, "Weight decay.", least=0)
    length: int = option(2048, "Longest conversation in tokens; longer ones are cut.", least=8)
    bf16: bool = option(True, "Compute in bfloat16.")
    grad_checkpointing: bool = option(True, "Recompute activations in the backward pass.")
    by_length: bool = option(False, "Batches of conversations of similar length.")
    source: str = option("", "Where the settings are from.", may_change=True)

    def __post_init__(self) -> None:
        check(self)
        if self.lora_rank and self.train == "projector":
            raise InputError("lora_rank needs train=projector+language or all")


PROJECTOR = VlmRecipe(source="LLaVA-1.5, stage 1: 558 k captions; only the projector is trained")
INSTRUCT = replace(
    PROJECTOR,
    train="projector+language",
    batch_size=128,
    lr=2e-5,
    by_length=True,
    source="LLaVA-1.5, stage 2: 665 k instructions; the tower is frozen",
)
RECIPES: dict[str, VlmRecipe] = {
    "llava15_projector": PROJECTOR,
    "llava15_instruct": INSTRUCT,
    "llava15_lora": replace(
        INSTRUCT, lora_rank=128, lr=2e-4, source="LLaVA-1.5, stage 2 with LoRA of rank 128"
    ),
    "laptop": VlmRecipe(
        train="projector+language",
        epochs=3,
        batch_size=32,
        device_batch=32,
        lr=1e-3,
        length=128,
        bf16=False,
        grad_checkpointing=False,
        source="measured here, docs/vlm.md",
    ),
}


def get_recipe(name: str) -> VlmRecipe:
    """The recipe of that name.

    Raises:
        InputError: no such recipe.
    """
    if name not in RECIPES:
        raise unknown("recipe", name, RECIPES)
    return RECIPES[name]
