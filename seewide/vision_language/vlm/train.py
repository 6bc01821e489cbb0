"""Training of a vision-language model by transformers' Trainer."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, fields
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from seewide.errors import InputError, require, write_atomically

from .build import EXTRA, Vlm
from .conversations import ConversationData, collate
from .recipes import VlmRecipe


def train(
    vlm: Vlm,
    data: ConversationData,
    recipe: VlmRecipe,
    out: Path,
    *,
    seed: int = 0,
    workers: int = 0,
    resume: bool = False,
    use_cpu: bool = False,
) -> dict[str, float]:
    """Train one stage and save model and processor into `out`.

    A frozen tower stays in evaluation mode: its batch norm statistics would move otherwise,
    although its parameters do not.

    Returns:
        The last training loss, and the number of conversations that were cut.

    Raises:
        InputError: the folder has a model already, or nothing to resume from.
    """
    transformers = require("transformers", EXTRA)
    require("accelerate", EXTRA)
    if (out / "config.json").exists() and not resume:
        raise InputError(f"{out} has a model already; choose another folder")
    if resume and not list(out.glob("checkpoint-*")):
        raise InputError(f"{out} has no checkpoint to resume from")
    data.length = recipe.length
    model = prepare(vlm, recipe)
    tower = vlm.model.model.vision_tower

    class FrozenTowerTrainer(transformers.Trainer):
        def compute_loss(self, model: nn.Module, *args: Any, **kwargs: Any) -> Any:
            if recipe.train != "all":
                tower.eval()
            return super().compute_loss(model, *args, **kwargs)

    trainer = FrozenTowerTrainer(
        model=model,
        args=training_arguments(recipe, out, seed, workers, use_cpu, len(data)),
        train_dataset=data,
        data_collator=partial(collate, pad=vlm.processor.tokenizer.pad_token_id or 0),
    )
    result = trainer.train(resume_from_checkpoint=resume or None)
    if recipe.lora_rank:
        vlm.model = model.merge_and_unload()
    if trainer.is_world_process_zero():
        vlm.save(out)
        text = json.dumps(asdict(recipe), indent=1) + "\n"
        write_atomically(out / "recipe.json", lambda scratch: scratch.write_text(text))
    return {"loss": result.training_loss, "cut": len(data.cut)}


def prepare(vlm: Vlm, recipe: VlmRecipe) -> nn.Module:
    """Freeze what the recipe does not train, and add LoRA if it wants that."""
    inner = vlm.model.model
    vlm.model.requires_grad_(recipe.train == "all")
    inner.multi_modal_projector.requires_grad_(True)
    if recipe.train != "projector":
        inner.language_model.requires_grad_(True)
        vlm.model.lm_head.requires_grad_(True)
    if not recipe.lora_rank:
        return vlm.model
    peft = require("peft", extra="lora")
    config = peft.LoraConfig(
        r=recipe.lora_rank,
        lora_alpha=2 * recipe.lora_rank,
        lora_dropout=0.05,
        target_modules=r".*language_model.*(q|k|v|o|gate|up|down)_proj",
        modules_to_save=["multi_modal_projector"],
    )
    return peft.get_peft_model(vlm.model, config)


def training_arguments(
    recipe: VlmRecipe, out: Path, seed: int, workers: int, use_cpu: bool, samples: int
) -> Any:  # fmt: skip
    """transformers' `TrainingArguments` of a recipe.

    Raises:
        InputError: the batch is no multiple of what the devices process at once.
    """
    transformers = require("transformers", EXTRA)
    at_once = recipe.device_batch * int(os.environ.get("WORLD_SIZE", 1))
    if recipe.batch_size % at_once:
        raise InputError(
            f"batch_size={recipe.batch_size} must be a multiple of {at_once}, the conversations "
            "that all devices process at once"
        )
    names = {field.name for field in fields(transformers.TrainingArguments)}
    recompute = "activation_checkpointing"  # "gradient_checkpointing" before transformers 5.2x
    recompute = recompute if recompute in names else "gradient_checkpointing"
    steps = max(1, round(recipe.epochs * samples / recipe.batch_size))
    return transformers.TrainingArguments(
        output_dir=str(out),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.device_batch,
        gradient_accumulation_steps=recipe.batch_size // at_once,
        learning_rate=recipe.lr,
        lr_scheduler_type="cosine",
        warmup_steps=round(recipe.warmup * steps),
        weight_decay=recipe.weight_decay,
        bf16=recipe.bf16,
        **{recompute: recipe.grad_checkpointing},
        train_sampling_strategy="group_by_length" if recipe.by_length else "random",
        dataloader_num_workers=workers,
        dataloader_pin_memory=False,
        remove_unused_columns=False,
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=10,
        report_to=[],
        seed=seed,
        use_cpu=use_cpu,
        disable_tqdm=True,
    )
