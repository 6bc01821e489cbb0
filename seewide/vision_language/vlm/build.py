"""Build, save and load a vision-language model.

The tower's last map has stride 32, so an image of 384 pixels becomes 144 tokens. LLaVA-1.5 has 576,
which 768 pixels give here.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import nn

import seewide.models  # noqa: F401 (registers the towers with timm)
from seewide.checkpoints.reading import read_state_dict
from seewide.errors import InputError, require, unknown

EXTRA = "vlm"
STRIDE = 32
IMAGE_TOKEN = "<image>"

# LLaVA-1.5's conversation, that of Vicuna v1. Texts of a turn may hold <image>.
VICUNA = (
    "{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] + ' ' }}"
    "{% elif message['role'] == 'user' %}{{ 'USER: ' + message['content'] + ' ' }}"
    "{% else %}{{ 'ASSISTANT: ' + message['content'] + eos_token }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT: ' }}{% endif %}"
)
TEMPLATES = {"vicuna": VICUNA}


@dataclass
class Vlm:
    """A model with its processor, both of transformers."""

    model: nn.Module
    processor: Any

    @property
    def image_tokens(self) -> int:
        """Number of tokens of an image."""
        return self.model.config.image_seq_length

    @property
    def tower(self) -> nn.Module:
        """The image tower, a network of timm."""
        return self.model.model.vision_tower.timm_model

    def save(self, folder: Path) -> Path:
        """Write model and processor; transformers loads them where seewide is imported first."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        return folder


def make_config(tower: str, text_config: Any, image_size: int, image_token: int) -> Any:
    """The `FastVlmConfig` of a tower and a language model's configuration.

    Args:
        image_size: side in pixels, a multiple of 32: at other sizes the processor and the tower
            count different numbers of tokens.
        image_token: index of `<image>`.

    Raises:
        InputError: no such tower, or another image size.
    """
    transformers = require("transformers", EXTRA)
    if not timm.is_model(tower):
        raise unknown("image tower", tower, timm.list_models())
    if image_size < STRIDE or image_size % STRIDE:
        raise InputError(f"image_size must be a multiple of {STRIDE}, got {image_size}")
    with torch.device("meta"):
        width = timm.create_model(tower, num_classes=0).num_features
    vision = {
        "model_type": "timm_wrapper",
        "architecture": tower,
        "hidden_size": width,
        "do_pooling": False,
        "initializer_range": 0.02,
    }
    return transformers.FastVlmConfig(
        vision_config=vision,
        text_config=text_config,
        image_token_index=image_token,
        image_seq_length=(image_size // STRIDE) ** 2,
    )


def make_processor(tower: str, tokenizer: Any, image_size: int, template: str = "") -> Any:
    """A `LlavaProcessor` with the tower's normalization.

    Raises:
        InputError: the tokenizer has no chat template and none is named.
    """
    transformers = require("transformers", EXTRA)
    if template and template not in TEMPLATES:
        raise unknown("chat template", template, TEMPLATES)
    template = TEMPLATES.get(template) or getattr(tokenizer, "chat_template", None)
    if not template:
        raise InputError(
            f"the tokenizer of {getattr(tokenizer, 'name_or_path', '') or 'this model'} has no "
            f"chat template; name one of {', '.join(TEMPLATES)}"
        )
    config = timm.get_pretrained_cfg(tower)
    images = transformers.CLIPImageProcessor(
        size={"height": image_size, "width": image_size},
        do_center_crop=False,
        image_mean=list(config.mean),
        image_std=list(config.std),
    )
    tokenizer.chat_template = template
    return transformers.LlavaProcessor(
        image_processor=images,
        tokenizer=tokenizer,
        patch_size=STRIDE,
        vision_feature_select_strategy="full",
        chat_template=template,
    )


def build_vlm(
    tower: str,
    language_model: nn.Module,
    tokenizer: Any,
    image_size: int = 384,
    *,
    tower_weights: Path | None = None,
    template: str = "",
) -> Vlm:
    """A model of a tower, a new projector and a causal language model.

    Args:
        tower: timm name.
        language_model: any `AutoModelForCausalLM`; its weights are taken over.
        tokenizer: of the language model; gets the token `<image>` if it has none.
        tower_weights: a run folder of `seewide train`, or a file of weights.
        template: name of a chat template, instead of the tokenizer's own.

    Raises:
        InputError: see `make_config` and `make_processor`; or weights of another tower.
    """
    transformers = require("transformers", EXTRA)
    if tokenizer.convert_tokens_to_ids(IMAGE_TOKEN) in (None, tokenizer.unk_token_id):
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE_TOKEN]})
    if len(tokenizer) > language_model.config.vocab_size:
        language_model.resize_token_embeddings(len(tokenizer))
    processor = make_processor(tower, tokenizer, image_size, template)
    token = tokenizer.convert_tokens_to_ids(IMAGE_TOKEN)
    config = make_config(tower, language_model.config, image_size, token)
    model = transformers.FastVlmForConditionalGeneration(config)
    model.model.language_model.load_state_dict(language_model.base_model.state_dict())
    model.lm_head.load_state_dict(language_model.get_output_embeddings().state_dict())
    model.generation_config.eos_token_id = tokenizer.eos_token_id
    model.generation_config.pad_token_id = tokenizer.pad_token_id
    vlm = Vlm(model, processor)
    # transformers has initialized the tower's layers anew; its own initialization comes back.
    fresh = timm.create_model(tower, num_classes=0).state_dict()
    state = fresh if tower_weights is None else _tower_state(tower_weights, fresh)
    vlm.tower.load_state_dict({k: v for k, v in state.items() if k in vlm.tower.state_dict()})
    return vlm


def _tower_state(path: Path, own: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    found = read_state_dict(path / "best.safetensors" if path.is_dir() else path)
    found = {name.removeprefix("backbone."): tensor for name, tensor in found.items()}
    missing = [k for k in own if k not in found or found[k].shape != own[k].shape]
    if missing:
        raise InputError(
            f"{path} has no weights for {missing[0]} and {len(missing) - 1} others of the tower"
        )
    return {name: found[name] for name in own}


def load_vlm(folder: str | Path) -> Vlm:
    """Load a model that `Vlm.save` or transformers wrote.

    Raises:
        InputError: no such folder, or a model of another kind.
    """
    transformers = require("transformers", EXTRA)
    if not (Path(folder) / "config.json").is_file():
        raise InputError(f"{folder} is no vision-language model: it has no config.json")
    config = transformers.AutoConfig.from_pretrained(folder)
    if config.model_type != "fast_vlm":
        raise InputError(f"{folder} holds a {config.model_type} model; allowed is fast_vlm")
    model = transformers.FastVlmForConditionalGeneration.from_pretrained(folder)
    return Vlm(model.eval(), transformers.AutoProcessor.from_pretrained(folder))


def pad_to_square(image: Image.Image, mean: tuple[float, ...]) -> Image.Image:
    """The image on a square of the mean colour, as LLaVA-1.5 prepares images."""
    image = image.convert("RGB")
    side = max(image.size)
    if image.size == (side, side):
        return image
    square = Image.new("RGB", (side, side), tuple(round(255 * value) for value in mean))
    square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return square
