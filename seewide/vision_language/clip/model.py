"""A trained CLIP model with its preprocessing and tokenizer, and its features."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn

from seewide.data.images import read_image
from seewide.errors import InputError

from .run import CONFIG_FILE, WEIGHTS_FILE, newest_checkpoint, read_weights, write_weights
from .tokens import check_tokenizer
from .towers import check_config, get_config, quiet, register


@dataclass
class Clip:
    """A CLIP model that is ready for evaluation.

    Attributes:
        model: open_clip's model in evaluation mode.
        transform: from an RGB PIL image to (3, H, W).
        tokenizer: from a list of texts to (N, L) indices.
        name: what it was loaded from.
    """

    model: nn.Module
    transform: Callable[[Image.Image], Tensor]
    tokenizer: Callable[[list[str]], Tensor]
    name: str
    device: torch.device

    @torch.no_grad()
    def encode_texts(self, texts: Sequence[str], batch_size: int = 256) -> Tensor:
        """Texts as (N, D) embeddings of length 1, on the CPU."""
        parts = [
            self.model.encode_text(
                self.tokenizer(list(texts[i : i + batch_size])).to(self.device), normalize=True
            ).cpu()
            for i in range(0, len(texts), batch_size)
        ]
        return torch.cat(parts)

    @torch.no_grad()
    def encode_images(
        self, images: Iterable[Image.Image | Path], batch_size: int = 64
    ) -> Tensor:  # fmt: skip
        """Images as (N, D) embeddings of length 1, on the CPU.

        Raises:
            InputError: an image that cannot be read.
        """
        parts, batch = [], []
        for image in images:
            image = read_image(image) if isinstance(image, Path) else image
            batch.append(self.transform(image))
            if len(batch) == batch_size:
                parts.append(self._encode(batch))
                batch = []
        if batch:
            parts.append(self._encode(batch))
        if not parts:
            raise InputError("there are no images")
        return torch.cat(parts)

    def _encode(self, batch: list[Tensor]) -> Tensor:
        x_NCHW = torch.stack(batch).to(self.device)
        return self.model.encode_image(x_NCHW, normalize=True).cpu()


def load_clip(name: str, weights: Path | None = None, device: str = "cpu") -> Clip:
    """Load a CLIP model.

    Args:
        name: a run folder of `seewide clip train`, or a configuration's name.
        weights: a checkpoint of the configuration, as open_clip reads it.

    Raises:
        InputError: no such run or configuration, or weights that do not fit it.
    """
    open_clip = register()
    folder = Path(name)
    source, config = name, None
    if folder.is_dir():
        if not (folder / CONFIG_FILE).is_file():
            raise InputError(f"{name} is no CLIP run: it has no {CONFIG_FILE}")
        checkpoint = newest_checkpoint(folder)
        if weights is None and not (folder / WEIGHTS_FILE).is_file():
            weights = checkpoint if checkpoint is None else write_weights(folder)
            if weights is None:
                raise InputError(f"{name} has no weights yet: its first epoch is not finished")
        weights = weights or folder / WEIGHTS_FILE
        source = f"local-dir:{name}"
        config = open_clip.get_model_config(source)
    else:
        config = get_config(name)
        if weights is None:
            raise InputError(f"{name} is a configuration; --weights names its checkpoint")
    check_config(name, config)
    model, transform = _build(source, config, weights, device)
    tokenizer = open_clip.get_tokenizer(source)
    check_tokenizer(tokenizer, config["text_cfg"]["vocab_size"], name)
    return Clip(model.eval(), transform, tokenizer, name, torch.device(device))


def _build(
    source: str, config: dict, weights: Path, device: str
) -> tuple[nn.Module, Callable[[Image.Image], Tensor]]:  # fmt: skip
    open_clip = register()
    state = read_weights(weights)
    bias = {"init_logit_bias": 0.0} if "logit_bias" in state else {}
    with quiet():
        model, _, transform = open_clip.create_model_and_transforms(
            source, load_weights=False, device=device, **bias
        )
    own = model.state_dict()
    wrong = [
        key
        for key in own.keys() | state.keys()
        if key not in own or key not in state or own[key].shape != state[key].shape
    ]
    if wrong:
        key = min(wrong)
        found = tuple(state[key].shape) if key in state else "missing"
        wanted = tuple(own[key].shape) if key in own else "none"
        raise InputError(
            f"{weights} is a checkpoint of another configuration: {key} is {found} in it and "
            f"{wanted} in {config['vision_cfg'].get('timm_model_name', source)}, and "
            f"{len(wrong) - 1} others differ"
        )
    model.load_state_dict(state)
    return model, transform
