"""The folder of a CLIP training run.

recipe.json              the settings
open_clip_config.json    the configuration and the preprocessing
open_clip_model.safetensors  the trained weights; with them `local-dir:RUN` is an open_clip name
tokenizer.json           if the recipe trains a tokenizer
train.csv, val.csv       the pairs as open_clip reads them
skipped.txt              the pairs that were left out, if there are any
open_clip/               open_clip's log and checkpoints
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from seewide.checkpoints.reading import read_state_dict
from seewide.errors import InputError, require, write_atomically

from ..pairs import Pairs, read_json, read_pairs
from .recipes import ClipRecipe
from .shards import is_shards, write_sizes
from .start import write_start
from .tokens import check_tokenizer, count_cut, train_word_tokenizer
from .towers import changed_config, check_config, get_config, register

LOGS = "open_clip"
CONFIG_FILE, WEIGHTS_FILE = "open_clip_config.json", "open_clip_model.safetensors"
COUNTED = 20_000  # captions that are tokenized to count those that are cut


def prepare_run(
    recipe: ClipRecipe,
    data: str,
    out: Path,
    check_images: bool = True,
    start: Path | None = None,
) -> list[str]:
    """Write everything that training needs into a new run folder, recipe.json last.

    Args:
        start: trained weights of the image tower.

    Returns:
        Sentences on the data: pairs, skipped pairs, captions that are cut.

    Raises:
        InputError: the folder has a run already, or data that cannot be read.
    """
    if (out / "recipe.json").exists():
        raise InputError(f"{out} has a run already; resume it with --resume, or choose another")
    facts = []
    captions: list[str] = []
    if is_shards(data):
        total, count = write_sizes(data)
        facts.append(f"{total} pairs in {count} tar files")
    else:
        for split in ("train", "val"):
            if split == "val" and not Path(data).is_dir():
                continue
            try:
                pairs = read_pairs(data, split, check_images)
            except InputError:
                if split == "train":
                    raise
                continue  # without validation pairs
            facts.append(f"{split}: {len(pairs.images)} images with {len(pairs)} captions")
            if pairs.skipped:
                facts.append(f"{split}: {len(pairs.skipped)} pairs skipped: {pairs.skipped}")
                write_text(out / "skipped.txt", "\n".join(pairs.skipped.lines()) + "\n")
            if split == "train":
                captions = [caption for _, caption in pairs]
                if len(captions) < recipe.batch_size:
                    raise InputError(
                        f"batch_size is {recipe.batch_size} and {data} has {len(captions)} pairs "
                        "to train on; an epoch needs one batch"
                    )
            write_pairs(out / f"{split}.csv", pairs)
    config = run_config(recipe)
    if recipe.vocabulary:
        if not captions:
            raise InputError("vocabulary=N counts words of a table of pairs, not of tar files")
        size = train_word_tokenizer(captions, recipe.vocabulary, out)
        config["text_cfg"] |= {"vocab_size": size, "hf_tokenizer_name": str(out.resolve())}
        facts.append(f"a vocabulary of {size} words")
    write_config(out, config)
    tokenizer = register().get_tokenizer(f"local-dir:{out}")
    check_tokenizer(tokenizer, config["text_cfg"]["vocab_size"], recipe.config)
    length = config["text_cfg"].get("context_length", 77)
    if cut := count_cut(tokenizer, captions[:COUNTED], length):
        facts.append(
            f"{cut} of the first {min(len(captions), COUNTED)} captions have more than {length} "
            "tokens and are cut"
        )
    if start is not None:
        write_start(out, recipe, start)
    write_text(out / "recipe.json", json.dumps(asdict(recipe) | {"data": data}, indent=1) + "\n")
    return facts


def run_config(recipe: ClipRecipe) -> dict[str, Any]:
    """The configuration of a recipe, with the recipe's changes.

    Raises:
        InputError: no such configuration or tower, or sizes that do not fit.
    """
    config = changed_config(
        get_config(recipe.config),
        embed_dim=recipe.embed_dim,
        vision__timm_model_name=recipe.tower,
        vision__image_size=recipe.image_size,
        vision__timm_drop=recipe.drop,
        vision__timm_drop_path=recipe.drop_path,
        text__width=recipe.text_width,
        text__heads=max(1, recipe.text_width // 64),
        text__layers=recipe.text_layers,
        text__context_length=recipe.context_length,
    )
    if not recipe.text_width:
        config["text_cfg"]["heads"] = get_config(recipe.config)["text_cfg"]["heads"]
    check_config(recipe.config, config)
    return config


def write_config(out: Path, config: Mapping[str, Any]) -> None:
    """Write the configuration where `local-dir:RUN` and `open_clip.add_model_config` find it."""
    content = {"model_cfg": config, "preprocess_cfg": {"size": config["vision_cfg"]["image_size"]}}
    write_text(out / CONFIG_FILE, json.dumps(content, indent=1) + "\n")
    write_text(out / "configs" / f"{run_name(out)}.json", json.dumps(config, indent=1) + "\n")


def run_name(out: Path) -> str:
    """Name of the run's configuration in open_clip: that of its folder.

    open_clip chooses losses, tokenizers and betas by parts of the name; these are cut out.
    """
    name = out.resolve().name.lower()
    for word in ("coca", "siglip", "vit"):
        name = name.replace(word, "x")
    return f"run-{name}"


def write_pairs(path: Path, pairs: Pairs) -> None:
    """Write pairs as open_clip reads them: absolute paths, columns `image` and `caption`."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_ALL)
    writer.writerow(("image", "caption"))
    writer.writerows((image.resolve(), caption) for image, caption in pairs)
    write_text(path, text.getvalue())


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    content = text.encode("utf-8", "surrogateescape")
    write_atomically(path, lambda scratch: scratch.write_bytes(content))


def read_recipe(out: Path) -> tuple[ClipRecipe, str]:
    """The recipe of a run, and its data.

    Raises:
        InputError: no run there.
    """
    if not (out / "recipe.json").is_file():
        raise InputError(f"{out} is no CLIP run: it has no recipe.json")
    settings = read_json(out / "recipe.json")
    data = settings.pop("data")
    return replace(ClipRecipe(), **settings), data


def newest_checkpoint(out: Path) -> Path | None:
    """open_clip's last checkpoint of a run, which it replaces in one step."""
    path = out / LOGS / "checkpoints" / "epoch_latest.pt"
    return path if path.is_file() else None


def write_weights(out: Path) -> Path:
    """Write the weights of the last checkpoint as safetensors, so that `local-dir:RUN` has them.

    Raises:
        InputError: there is no checkpoint.
    """
    checkpoint = newest_checkpoint(out)
    if checkpoint is None:
        raise InputError(f"{out} has no checkpoint yet")
    state = read_weights(checkpoint)
    save = require("safetensors.torch", "clip").save_file
    return write_atomically(out / WEIGHTS_FILE, lambda scratch: save(state, scratch))


def read_weights(path: Path) -> dict[str, Tensor]:
    """The weights in a checkpoint of open_clip, or in a file of weights.

    Raises:
        InputError: no such file, or one without tensors.
    """
    content = read_state_dict(path)
    content = content.get("state_dict", content)
    state = {
        name.removeprefix("module."): tensor.contiguous()
        for name, tensor in content.items()
        if isinstance(tensor, Tensor)
    }
    # The frozen batch norms of a locked tower do not count batches; ordinary ones want the key.
    for name in [name for name in state if name.endswith(".running_mean")]:
        state.setdefault(f"{name.removesuffix('running_mean')}num_batches_tracked", torch.tensor(0))
    return state
