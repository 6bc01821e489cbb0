"""Questions to a vision-language model, and how much its answers depend on the image."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from seewide.data.images import read_image
from seewide.errors import InputError

from .build import IMAGE_TOKEN, Vlm
from .conversations import Conversation, collate, encode, pixels, render


@torch.no_grad()
def answer(
    vlm: Vlm,
    messages: Sequence[dict[str, str]],
    image: Image.Image | None = None,
    most: int = 64,
    **settings: Any,
) -> str:
    """The model's next turn.

    Args:
        messages: turns of `user` and `assistant`; the image is where a text says `<image>`.
        most: at most so many tokens.
        settings: of `generate()`, such as `do_sample=True`.

    Raises:
        InputError: an image without a mark, or a mark without an image.
    """
    marks = sum(message["content"].count(IMAGE_TOKEN) for message in messages)
    if marks != (image is not None):
        raise InputError(
            f"the conversation has {marks} {IMAGE_TOKEN} marks and {int(image is not None)} images"
        )
    tokenizer = vlm.processor.tokenizer
    text, _ = render(tokenizer, messages, vlm.image_tokens)
    text = text + render_prompt(tokenizer, messages, vlm.image_tokens)[len(text) :]
    inputs = tokenizer(text, return_tensors="pt", add_special_tokens=False)
    inputs.pop("token_type_ids", None)
    device = vlm.model.device
    inputs = {key: value.to(device) for key, value in inputs.items()}
    if image is not None:
        inputs["pixel_values"] = pixels(vlm, [image]).to(device, vlm.model.dtype)
    settings = {"do_sample": False, "max_new_tokens": most, **settings}
    ids = vlm.model.generate(**inputs, **settings)[0, inputs["input_ids"].shape[1] :]
    return tokenizer.decode(ids, skip_special_tokens=True).strip()


def render_prompt(tokenizer: Any, messages: Sequence[dict[str, str]], image_tokens: int) -> str:
    """The text of a conversation, up to where the assistant's next turn begins."""
    marks = IMAGE_TOKEN * image_tokens
    messages = [{**m, "content": m["content"].replace(IMAGE_TOKEN, marks)} for m in messages]
    return tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)


def ask(vlm: Vlm, question: str, image: Image.Image, most: int = 64) -> str:
    """The answer to one question on one image."""
    content = question if IMAGE_TOKEN in question else f"{IMAGE_TOKEN}\n{question}"
    return answer(vlm, [{"role": "user", "content": content}], image, most)


@dataclass(frozen=True)
class Grounding:
    """How much answers depend on the image.

    Attributes:
        right, wrong: mean negative log-likelihood per token of the right answers, in nats, with
            the right image and with that of another conversation.
        better: share of conversations in which the right image is better.
        p_value: of a sign test that right and wrong images are alike (normal approximation).
    """

    right: float
    wrong: float
    better: float
    p_value: float
    conversations: int


@torch.no_grad()
def grounding(vlm: Vlm, conversations: Sequence[Conversation], batch_size: int = 32) -> Grounding:
    """Compare the likelihood of answers under the right image and under another one.

    The other image is that of the conversation half of the list away. Needs no generation.

    Raises:
        InputError: fewer than two conversations with images.
    """
    conversations = [c for c in conversations if c.image is not None]
    N = len(conversations)
    if N < 2:
        raise InputError(f"grounding needs two conversations with images, got {N}")
    vlm.model.eval()
    images = torch.cat([pixels(vlm, [read_image(c.image)]) for c in conversations])
    other = (torch.arange(N) + N // 2) % N
    right, wrong = (
        _likelihoods(vlm, conversations, x, batch_size) for x in (images, images[other])
    )
    differ = right != wrong
    wins, n = int((right < wrong).sum()), int(differ.sum())
    z = (2 * wins - n) / math.sqrt(n) if n else 0.0
    p_value = math.erfc(abs(z) / math.sqrt(2))
    return Grounding(float(right.mean()), float(wrong.mean()), wins / N, p_value, N)


def _likelihoods(
    vlm: Vlm, conversations: Sequence[Conversation], images: Tensor, batch_size: int
) -> Tensor:  # fmt: skip
    """(N,) mean negative log-likelihood of each conversation's answers."""
    pad = vlm.processor.tokenizer.pad_token_id or 0
    found = []
    for start in range(0, len(conversations), batch_size):
        part = conversations[start : start + batch_size]
        samples = [
            encode(vlm, c.messages) | {"pixel_values": x}
            for c, x in zip(part, images[start : start + batch_size], strict=True)
        ]
        batch = {key: value.to(vlm.model.device) for key, value in collate(samples, pad).items()}
        labels = batch.pop("labels")[:, 1:]
        logits = vlm.model(**batch).logits[:, :-1].float()
        losses = torch.nn.functional.cross_entropy(
            logits.transpose(1, 2), labels, reduction="none", ignore_index=-100
        )
        found.append((losses.sum(1) / (labels != -100).sum(1)).cpu())
    return torch.cat(found)
