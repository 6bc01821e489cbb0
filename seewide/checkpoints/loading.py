"""Load weights into a model, from the authors' key layout or ours.

A family's file in `seewide.models` has `checkpoint_filter_fn(state_dict, model)`, timm's hook,
which renames the authors' keys to ours. All families share what stands here: comparing keys and
shapes before the model is changed, and renaming by rules.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping

from torch import Tensor, nn

from ..errors import InputError
from .reading import read_state_dict, some, unwrap


def load_checkpoint(
    model: nn.Module, source: str | os.PathLike | Mapping[str, Tensor], strict: bool = True
) -> nn.Module:
    """Load weights into `model`, all or nothing, and return it.

    Args:
        model: a network of seewide or timm, fused or not.
        source: a `.safetensors` or torch file, or a state dict; in the authors' key layout or
            ours, of a training model or a fused one, as `model` is.
        strict: whether missing and unexpected keys are errors.

    Raises:
        InputError: no such file, a damaged one, one whose reading could run code, or keys,
            shapes or dtypes that do not fit. The model is then as it was.
    """
    if isinstance(source, Mapping):
        state, origin = dict(source), "the state dict"
    elif isinstance(source, (str, os.PathLike)):
        state, origin = read_state_dict(source), str(source)
    else:
        raise InputError(f"source must be a path or a state dict, got {source!r:.80}")
    state = to_our_keys(unwrap(state), model, origin)
    own = model.state_dict()
    complaints = differences(own, state, strict)
    if complaints:
        raise InputError(f"{origin} does not fit {type(model).__name__}: {'; '.join(complaints)}")
    model.load_state_dict({k: v for k, v in state.items() if k in own}, strict=strict)
    return model


def to_our_keys(state: dict[str, Tensor], model: nn.Module, origin: str) -> dict[str, Tensor]:
    """What the `checkpoint_filter_fn` of the model's file makes of the state dict.

    Raises:
        InputError: it fails, as for tensors of odd shapes.
    """
    convert = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if convert is None:
        return state
    try:
        return convert(state, model)
    except InputError:
        raise
    except (LookupError, RuntimeError, TypeError, ValueError, ArithmeticError) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{origin} does not fit {type(model).__name__}: its tensors cannot be renamed and "
            f"reshaped ({type(error).__name__}: {reason})"
        ) from None


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
        complaints.append(f"missing {some(missing)}")
    if strict and unexpected:
        complaints.append(f"unexpected {some(unexpected)}")
    common = sorted(own.keys() & new.keys())
    wrong = [key for key in common if own[key].shape != new[key].shape]
    if wrong:
        key = wrong[0]
        more = f" and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        complaints.append(
            f"{key} has shape {tuple(new[key].shape)}, not {tuple(own[key].shape)}{more}"
        )
    for key in common:
        reason = _unusable(new[key], own[key])
        if reason:
            complaints.append(f"{key} {reason}")
            break
    return complaints


def _unusable(new: Tensor, own: Tensor) -> str:
    """Why a tensor cannot be copied over another without losing something, or ""."""
    if new.is_complex() and not own.is_complex():
        return f"is complex ({new.dtype}), and its imaginary part would be lost in {own.dtype}"
    if new.is_quantized != own.is_quantized or new.layout is not own.layout:
        return f"is stored as {new.dtype}, {new.layout}; save it as a plain tensor"
    return ""
