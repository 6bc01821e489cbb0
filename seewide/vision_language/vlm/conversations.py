"""Conversations in LLaVA's JSON, as token indices with labels.

    [{"id": "0", "image": "a.jpg", "conversations": [
        {"from": "human", "value": "<image>\\nWhich flower is this?"},
        {"from": "gpt", "value": "A rose."}]}]

Only the assistant's words and the end token are learned: all other labels are -100.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewide.data.images import read_image, verify_image
from seewide.errors import InputError

from ..pairs import Skipped, read_json
from .build import IMAGE_TOKEN, Vlm, pad_to_square

ROLES = {"human": "user", "gpt": "assistant", "system": "system"}
IGNORED = -100


@dataclass(frozen=True)
class Conversation:
    """Messages as transformers' chat templates take them, and an image or none."""

    name: str
    messages: tuple[dict[str, str], ...]
    image: Path | None = None


def read_conversations(
    path: Path, images: Path | None = None
) -> tuple[list[Conversation], Skipped]:
    """Read LLaVA's JSON.

    Args:
        images: where image paths start; default: the folder of the file.

    Returns:
        The conversations, and those that were left out: broken or missing images, no answer.

    Raises:
        InputError: another format, a conversation whose number of `<image>` marks is not that of
            its images, or no conversation that can be read.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise InputError(f"{path} must be a list of conversations, got a {type(content).__name__}")
    root, skipped, found = images or path.parent, Skipped(), []
    checked: dict[Path, bool] = {}
    for number, entry in enumerate(content):
        conversation = _conversation(path, number, entry, root)
        image = conversation.image
        if image is not None and image not in checked:
            checked[image] = _can_be_read(image)
        if image is not None and not checked[image]:
            skipped.add("image that cannot be read", image.name)
        elif not any(m["role"] == "assistant" and m["content"] for m in conversation.messages):
            skipped.add("conversation without an answer", conversation.name)
        else:
            found.append(conversation)
    if not found:
        raise InputError(f"{path} has no conversation that can be read: {skipped or 'it is empty'}")
    return found, skipped


def _conversation(path: Path, number: int, entry: Any, root: Path) -> Conversation:
    try:
        name = str(entry.get("id", number))
        messages = tuple(
            {"role": ROLES[turn["from"]], "content": str(turn["value"]).strip()}
            for turn in entry["conversations"]
        )
    except (AttributeError, KeyError, TypeError) as error:
        raise InputError(
            f"conversation {number} of {path} is not in LLaVA's format: {error}"
        ) from None
    marks = sum(message["content"].count(IMAGE_TOKEN) for message in messages)
    images = [entry["image"]] if isinstance(entry.get("image"), str) else entry.get("image") or []
    if marks != len(images) or marks > 1:
        raise InputError(
            f"conversation {name} of {path} has {marks} {IMAGE_TOKEN} marks and {len(images)} "
            "images; one of each is allowed, or none"
        )
    return Conversation(name, messages, root / images[0] if images else None)


def _can_be_read(image: Path) -> bool:
    try:
        verify_image(image)
    except InputError:
        return False
    return True


@dataclass
class ConversationData(torch.utils.data.Dataset):
    """Conversations as a data set for transformers' Trainer.

    Attributes:
        length: longest sequence in tokens; longer ones are cut and counted in `cut`.
        cut: names of the conversations that were cut so far, in this process.
    """

    conversations: Sequence[Conversation]
    vlm: Vlm
    length: int = 2048
    cut: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        return len(self.conversations)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """`input_ids` (L,), `labels` (L,), and `pixel_values` (3, H, W) if there is an image."""
        conversation = self.conversations[index]
        sample = encode(self.vlm, conversation.messages)
        if len(sample["input_ids"]) > self.length:
            self.cut.add(conversation.name)
            sample = {key: values[: self.length] for key, values in sample.items()}
        if conversation.image is not None:
            sample["pixel_values"] = pixels(self.vlm, [read_image(conversation.image)])[0]
        return sample


def encode(vlm: Vlm, messages: Sequence[dict[str, str]]) -> dict[str, Tensor]:
    """Token indices of a conversation, and labels that are -100 outside the answers."""
    tokenizer = vlm.processor.tokenizer
    text, answers = render(tokenizer, messages, vlm.image_tokens)
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids = torch.tensor(encoded["input_ids"])
    labels = torch.full_like(ids, IGNORED)
    for index, (start, end) in enumerate(encoded["offset_mapping"]):
        if any(first <= start and end <= last and start < end for first, last in answers):
            labels[index] = ids[index]
    return {"input_ids": ids, "labels": labels}


def render(
    tokenizer: Any, messages: Sequence[dict[str, str]], image_tokens: int
) -> tuple[str, list[tuple[int, int]]]:
    """The text of a conversation by the chat template, and where the answers are in it."""
    marks = IMAGE_TOKEN * image_tokens
    messages = [{**m, "content": m["content"].replace(IMAGE_TOKEN, marks)} for m in messages]

    def text(count: int, prompt: bool = False) -> str:
        return tokenizer.apply_chat_template(
            messages[:count], tokenize=False, add_generation_prompt=prompt
        )

    answers = [
        (len(text(number, prompt=True)), len(text(number + 1)))
        for number, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    return text(len(messages)), answers


def pixels(vlm: Vlm, images: Iterable[Any]) -> Tensor:
    """(N, 3, H, W): images on squares of the mean colour, resized and normalized."""
    processor = vlm.processor.image_processor
    squares = [pad_to_square(image, tuple(processor.image_mean)) for image in images]
    return processor(squares, return_tensors="pt")["pixel_values"]


def collate(samples: Sequence[dict[str, Tensor]], pad: int) -> dict[str, Tensor]:
    """A batch, padded on the right; images of those samples that have one."""

    def padded(key: str, value: int) -> Tensor:
        rows = [sample[key] for sample in samples]
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    lengths = torch.tensor([len(sample["input_ids"]) for sample in samples])
    ids = padded("input_ids", pad)
    batch = {
        "input_ids": ids,
        "labels": padded("labels", IGNORED),
        "attention_mask": (torch.arange(ids.shape[1]) < lengths[:, None]).long(),
    }
    images = [sample["pixel_values"] for sample in samples if "pixel_values" in sample]
    return batch | ({"pixel_values": torch.stack(images)} if images else {})
