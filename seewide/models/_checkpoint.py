"""Reading checkpoints: the authors' layout or ours, never code.

A family's file in `seewide.models` has `checkpoint_filter_fn(state_dict, model)`, timm's hook,
which renames the authors' keys to ours. Here is what all families share: reading the file
safely, comparing keys and shapes before anything is touched, and renaming by rules.
"""

from __future__ import annotations

import argparse
import os
import pickle
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from ..errors import InputError

# Under which keys training scripts keep the weights, best first.
WRAPPERS = ("state_dict_ema", "model_ema", "model", "state_dict", "module")


def load_checkpoint(
    model: nn.Module, source: str | os.PathLike | Mapping[str, Tensor], strict: bool = True
) -> nn.Module:
    """Load weights into `model`, all or nothing, and return it.

    Args:
        model: a network of seewide or timm, in training form or fused.
        source: a `.safetensors` or torch file, or a state dict; in the authors' key layout or
            ours, of the same form (training or merged) as `model`.
        strict: whether missing and unexpected keys are errors.

    Raises:
        InputError: no such file, a damaged one, one that needs unpickling code, or keys and
            shapes that do not fit. The model is then as it was.
    """
    if isinstance(source, Mapping):
        state, origin = dict(source), "the state dict"
    else:
        state, origin = read_state_dict(source), str(source)
    state = unwrap(state)
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is not None:
        state = convert(state, model)
    own = model.state_dict()
    complaints = differences(own, state, strict)
    if complaints:
        raise InputError(f"{origin} does not fit {type(model).__name__}: {'; '.join(complaints)}")
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=strict)
    return model


def read_state_dict(path: str | os.PathLike) -> dict[str, Tensor]:
    """The content of a checkpoint file, read without running any code of it."""
    path = Path(path)
    if not path.is_file():
        raise InputError(f"there is no checkpoint file {path}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        # Training scripts of the field leave their arguments in the file: plain data.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        blocked = re.search(r"(?:GLOBAL|Unsupported \w+) ([\w.]+)", str(error))
        if blocked:
            raise InputError(
                f"{path} was refused: reading it would run code ({blocked[1]}); only files of "
                "tensors and plain data are loaded"
            ) from None
        raise InputError(f"{path} is damaged or is no checkpoint") from None
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        reason = str(error).splitlines()[0][:120] if str(error) else type(error).__name__
        raise InputError(f"{path} is damaged or is no checkpoint: {reason}") from None
    if not isinstance(content, Mapping):
        raise InputError(f"{path} holds a {type(content).__name__}, not a dict of tensors")
    return dict(content)


def unwrap(content: Mapping[str, object]) -> dict[str, Tensor]:
    """The state dict inside what a training script saved, without a `module.` prefix."""
    for wrapper in WRAPPERS:
        inner = content.get(wrapper)
        if isinstance(inner, Mapping) and inner:
            return unwrap(inner)
    state = {k: v for k, v in content.items() if isinstance(v, Tensor)}
    if not state:
        raise InputError(f"no tensors in the checkpoint; its keys are {_some(map(str, content))}")
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def rename(state: Mapping[str, Tensor], rules: Iterable[tuple[str, str]]) -> dict[str, Tensor]:
    """`state` with each key rewritten by the first rule (pattern, replacement) that matches it."""
    compiled = [(re.compile(pattern), replacement) for pattern, replacement in rules]
    renamed = {}
    for key, value in state.items():
        for pattern, replacement in compiled:
            new, hits = pattern.subn(replacement, key)
            if hits:
                key = new
                break
        renamed[key] = value
    return renamed


def invert(rules: Iterable[tuple[str, str]]) -> list[tuple[str, str]]:
    r"""The rules that lead back from the keys that `rules` make.

    For patterns of escaped text and groups, all of which the replacement keeps, as in
    `(r"^blocks\.(\d+)\.", r"stages.\1.")`. That two keys lead to the same one is not noticed here;
    whoever goes back goes forward again and compares.
    """
    return [_inverse(pattern, replacement) for pattern, replacement in rules]


def _inverse(pattern: str, replacement: str) -> tuple[str, str]:
    texts = re.split(r"\(([^()]*)\)", pattern.removeprefix("^").removesuffix("$"))
    groups = texts[1::2]
    texts[1::2] = [rf"\g<g{i}>" for i in range(1, len(groups) + 1)]
    back = "".join(texts).replace(r"\.", ".")
    parts = re.split(r"\\(\d)", replacement)
    parts[0::2] = map(re.escape, parts[0::2])
    parts[1::2] = [f"(?P<g{i}>{groups[int(i) - 1]})" for i in parts[1::2]]
    start, end = "^" * pattern.startswith("^"), "$" * pattern.endswith("$")
    return start + "".join(parts) + end, back


def differences(
    own: Mapping[str, Tensor], new: Mapping[str, Tensor], strict: bool = True
) -> list[str]:
    """What keeps `new` from being loaded over `own`, in words; empty if nothing does."""
    complaints = []
    missing, unexpected = own.keys() - new.keys(), new.keys() - own.keys()
    if strict and missing:
        complaints.append(f"missing {_some(missing)}")
    if strict and unexpected:
        complaints.append(f"unexpected {_some(unexpected)}")
    wrong = [key for key in own.keys() & new.keys() if own[key].shape != new[key].shape]
    if wrong:
        key = min(wrong)
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        complaints.append(
            f"{key} has shape {tuple(new[key].shape)}, not {tuple(own[key].shape)}{more}"
        )
    return complaints


def _some(keys: Iterable[str], limit: int = 4) -> str:
    keys = sorted(keys)
    more = f" and {len(keys) - limit} more" if len(keys) > limit else ""
    return ", ".join(keys[:limit]) + more
