"""A small language model with random weights and a tokenizer of words, for demonstrations."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import nn

from seewide.errors import require

from .build import EXTRA, IMAGE_TOKEN

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", IMAGE_TOKEN)


def small_language_model(
    texts: Iterable[str], width: int = 192, layers: int = 4, seed: int = 0
) -> tuple[nn.Module, Any]:  # fmt: skip
    """A Llama of random weights, and a tokenizer of the words and signs in `texts`.

    Returns:
        `LlamaForCausalLM`, and a `PreTrainedTokenizerFast` with `<image>`.
    """
    import torch

    transformers = require("transformers", EXTRA)
    tokenizers = require("tokenizers", EXTRA)
    splitter = tokenizers.pre_tokenizers.Whitespace()
    found = {word for text in texts for word, _ in splitter.pre_tokenize_str(text)}
    words = [*SPECIAL, *sorted(found - set(SPECIAL))]
    vocabulary = {word: index for index, word in enumerate(words)}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="<unk>"))
    inner.pre_tokenizer = splitter
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=[IMAGE_TOKEN],
    )
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=3 * width,
        num_hidden_layers=layers,
        num_attention_heads=max(1, width // 64),
        max_position_embeddings=512,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return transformers.LlamaForCausalLM(config), tokenizer
