"""From the authors' checkpoints to safetensors that say where they come from, and back.

Conversion renames keys and nothing else: each tensor keeps its bits, and before a file is written
the keys are converted back and have to lead to the same tensors. Buffers that hold no weights
(the index tables of LSNet's attention) are left out of our layout and computed for the authors'.

The networks are those registered with timm whose file names the layout of their authors
(`AUTHORS_FORMS`, `checkpoint_filter_fn` and `authors_state_dict`), as all of `seewide.models` do.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import timm
import torch
from torch import Tensor, nn

from .._version import __version__
from ..errors import InputError, unknown, write_atomically
from ..reparam import fuse
from .integrity import read_metadata, safetensors_bytes, sha256
from .loading import differences
from .reading import read_state_dict, unwrap

ENDINGS = {"seewide": (".safetensors",), "authors": (".pth", ".pt")}

State = dict[str, Tensor]


@dataclass(frozen=True)
class Identity:
    """Which network a state dict is of."""

    model: str
    family: ModuleType
    form: str  # "training" or "fused"
    layout: str  # "seewide" or "authors", as it was found
    state: State  # under our keys


@dataclass(frozen=True)
class Conversion:
    """What was written. `provenance` stands in the header of safetensors."""

    path: Path
    layout: str
    tensors: int
    provenance: dict[str, str]

    def __str__(self) -> str:
        facts = self.provenance
        return (
            f"{self.path}: {_article(facts['form'])} {facts['architecture']}, "
            f"{self.tensors} tensors in the layout of {self.layout}, from {facts['source_file']} "
            f"(SHA-256 {facts['source_sha256']})"
        )


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    to: str = "seewide",
    model: str | None = None,
) -> Conversion:
    """Rewrite a checkpoint in the other key layout; no tensor changes.

    Args:
        source: a safetensors or torch file of a training model or a fused one, in either layout.
        target: ends in `.safetensors` for our layout, in `.pth` for the authors'. Replaced in one
            step.
        to: "seewide" or "authors"; the authors' is `{"model": state_dict}`, as they save it.
        model: a name of `seewide.list_models()`; None finds it by keys and shapes.

    Raises:
        InputError: a file that cannot be read safely, one that fits no network or not `model`, a
            network whose authors published no code, or a target of another ending.
    """
    source, target = Path(source), Path(target)
    if to not in ENDINGS:
        raise unknown("layout", to, ENDINGS)
    if target.suffix not in ENDINGS[to]:
        raise InputError(
            f"a file in the layout of {to} ends in {' or '.join(ENDINGS[to])}, got {target}"
        )
    found = identify(unwrap(read_state_dict(source)), model, _hint(source), str(source))
    provenance = {
        "producer": f"seewide {__version__}",
        "architecture": found.model,
        "form": found.form,
        "source_file": source.name,
        "source_sha256": sha256(source),
        "source_layout": found.layout,
    }
    # In memory first: torch's and safetensors' writers have errors of their own for a full disk.
    if to == "seewide":
        state = found.state
        if found.layout == "authors":
            authors_state_dict(found)  # raises if converting back gives other tensors
        content = safetensors_bytes(state, {**_header(source), **provenance})
    else:
        state = authors_state_dict(found)
        buffer = io.BytesIO()
        torch.save({"model": state}, buffer)
        content = buffer.getvalue()
    write_atomically(target, lambda scratch: scratch.write_bytes(content))
    return Conversion(target, to, len(state), provenance)


def identify(
    state: Mapping[str, Tensor],
    model: str | None = None,
    hint: str = "",
    origin: str = "the state dict",
) -> Identity:
    """Find the network that `state` is of, by its keys and shapes.

    Args:
        state: tensors on any device, in our layout or the authors', fused or not.
        model: the only name to try; None tries every network that can be converted.
        hint: a text whose words are names to try first, such as the name of the file.
        origin: what errors call the state dict.

    Raises:
        InputError: no network fits, or `model` does not; the sentence then names a difference.
    """
    families = _families()
    known = [name for family in families for name in _names(family, None, "")]
    if model is not None and model not in known:
        raise unknown("model", model, known)
    complaints = []
    for family in families:
        ours = _renamed(family, state)
        if ours is None or not all(key.startswith(("stem.", "stages.", "head.")) for key in ours):
            continue
        for name in _names(family, model, hint):
            for form, own in _forms(name, ours):
                wrong = differences(own, ours)
                if not wrong:
                    layout = "seewide" if ours.keys() == state.keys() else "authors"
                    return Identity(name, family, form, layout, ours)
                complaints.append("; ".join(wrong))
    if model is not None and complaints:
        raise InputError(f"{origin} does not fit {model}: {complaints[0]}")
    which = model or f"any of the {len(known)} networks of `seewide models`"
    raise InputError(f"{origin} does not have the keys and shapes of {which}")


def authors_state_dict(found: Identity) -> State:
    """The state dict under the authors' keys; converted back, it gives the same tensors.

    Raises:
        InputError: the authors have no files of this network, fused or not.
    """
    forms = found.family.AUTHORS_FORMS
    if found.form not in forms:
        why = f"only for {' and '.join(forms)} models" if forms else "no code was published"
        raise InputError(f"no authors' layout for {_article(found.form)} {found.model}: {why}")
    theirs = found.family.authors_state_dict(found.state)
    back = found.family.checkpoint_filter_fn(theirs, nn.Module())
    wrong = {k for k in back.keys() | found.state.keys() if back.get(k) is not found.state.get(k)}
    if wrong:
        raise InputError(
            f"{found.model} has keys that the authors' layout does not distinguish: {min(wrong)} "
            f"and {len(wrong) - 1} more"
        )
    return theirs


def _families() -> list[ModuleType]:
    """The files of networks that can be converted, in the order of their names."""
    modules = {timm.model_entrypoint(name).__module__ for name in timm.list_models()}
    found = (sys.modules[name] for name in sorted(modules))
    return [module for module in found if getattr(module, "AUTHORS_FORMS", None) is not None]


def _renamed(family: ModuleType, state: Mapping[str, Tensor]) -> State | None:
    """The state dict under our keys; None if its tensors are none of this family's."""
    if not family.AUTHORS_FORMS:
        return dict(state)
    try:
        # An empty model: some families fit weights to the model's input size, we only rename.
        return dict(family.checkpoint_filter_fn(dict(state), nn.Module()))
    except (LookupError, RuntimeError, TypeError, ValueError, ArithmeticError):
        return None  # tensors of shapes that this family never has


def _names(family: ModuleType, model: str | None, hint: str) -> list[str]:
    """The family's architectures, those that the hint contains first."""
    names = dict.fromkeys(name.partition(".")[0] for name in family.default_cfgs)
    if model is not None:
        return [model] if model in names else []
    words = re.sub(r"[^a-z0-9]+", "_", hint.lower())
    return sorted(names, key=lambda name: len(name) if name in words else 0, reverse=True)


def _forms(name: str, ours: State) -> Iterator[tuple[str, State]]:
    """The network without memory, unfused and fused, if its depths are those of `ours`."""
    options = {"num_classes": max((_size(ours, key, 0) for key in _CLASSIFIERS), default=0)}
    first = f"{timm.get_pretrained_cfg(name).first_conv}.weight"
    if _size(ours, first, 1):
        options["in_chans"] = _size(ours, first, 1)
    net = timm.create_model(name, device="meta", **options)
    own = net.state_dict()
    yield "training", own
    if _blocks(own) == _blocks(ours):
        yield "fused", fuse(net).state_dict()


def _size(state: State, key: str, axis: int) -> int:
    """Length of an axis of a tensor; 0 without the tensor or the axis."""
    return state[key].shape[axis] if key in state and state[key].ndim > axis else 0


def _article(form: str) -> str:
    return "a fused" if form == "fused" else "a training"


_CLASSIFIERS = ("head.fc.linear.weight", "head.fc.weight")  # behind a batch norm, or alone


def _blocks(state: Mapping[str, Tensor]) -> set[str]:
    return {found[0] for key in state if (found := re.match(r"stages\.\d+\.blocks\.\d+\.", key))}


def _header(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself, such as the facts of a training run."""
    if path.suffix != ".safetensors":
        return {}
    return read_metadata(path)


def _hint(path: Path) -> str:
    return f"{_header(path).get('architecture', '')} {path.name}"
