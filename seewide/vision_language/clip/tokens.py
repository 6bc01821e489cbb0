"""A tokenizer of whole words for small data, and what a tokenizer does to captions.

CLIP's byte-pair vocabulary has 49,408 entries, more parameters than everything else in a small
model. `train_word_tokenizer` counts the words of the training captions instead. The tokenizer is
saved in the format of transformers, which open_clip reads from a local folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor

from seewide.errors import InputError, require

PAD, UNKNOWN, END = "<pad>", "<unk>", "<end>"


def train_word_tokenizer(captions: Iterable[str], most: int, folder: Path) -> int:
    """Save a tokenizer of the most frequent words in lower case, and return its vocabulary size.

    The end token has the highest index, at which open_clip's text tower reads the embedding.

    Args:
        most: at most so many words; words that occur once are left out.
        folder: gets tokenizer.json and tokenizer_config.json.

    Raises:
        InputError: the captions have no word that occurs twice.
    """
    tokenizers = require("tokenizers", "clip")
    transformers = require("transformers", "clip")
    normalizer = tokenizers.normalizers.Sequence(
        [tokenizers.normalizers.NFKC(), tokenizers.normalizers.Lowercase()]
    )
    splitter = tokenizers.pre_tokenizers.Whitespace()
    counts: dict[str, int] = {}
    for caption in captions:
        for word, _ in splitter.pre_tokenize_str(normalizer.normalize_str(caption)):
            counts[word] = counts.get(word, 0) + 1
    words = sorted((word for word, n in counts.items() if n > 1), key=lambda w: (-counts[w], w))
    if not words:
        raise InputError("the captions have no word that occurs twice; a vocabulary needs some")
    entries = [PAD, UNKNOWN, *words[:most], END]
    vocabulary = {word: index for index, word in enumerate(dict.fromkeys(entries))}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token=UNKNOWN))
    tokenizer.normalizer, tokenizer.pre_tokenizer = normalizer, splitter
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single=f"$A {END}", special_tokens=[(END, vocabulary[END])]
    )
    fast = transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, unk_token=UNKNOWN, eos_token=END
    )
    fast.save_pretrained(folder)
    return len(vocabulary)


def count_cut(tokenizer: Callable[..., Tensor], captions: Iterable[str], length: int) -> int:
    """Number of captions that have more tokens than the context length and are cut.

    A caption that fills the context is compared with its tokens in twice the length.
    """
    cut = 0
    for caption in captions:
        cut += int((tokenizer([caption], context_length=2 * length)[0] != 0).sum()) > length
    return cut


def check_tokenizer(tokenizer: Any, vocabulary: int, name: str) -> None:
    """See that a tokenizer's indices fit the embedding table of a text tower.

    Raises:
        InputError: they do not.
    """
    inner = getattr(tokenizer, "tokenizer", None)
    size = len(inner) if inner is not None else tokenizer.vocab_size
    if size > vocabulary:
        raise InputError(
            f"the tokenizer has {size} tokens and the text tower of {name} {vocabulary}: they "
            "belong to different models"
        )
