"""From the authors' checkpoints to safetensors that say where they come from, and back.

Conversion renames keys and nothing else: each tensor keeps its bits, and before a file is written
the way back is gone and has to end at the tensors it began with. Buffers that hold no weights
(the index tables of LSNet's attention) are left out on the way here and made anew on the way back.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import timm
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor, nn

from ._version import __version__
from .errors import InputError, unknown, write_atomically
from .models import FAMILIES, list_models
from .models._checkpoint import differences, read_state_dict, unwrap
from .models._hub import sha256
from .reparam import fuse

ENDINGS = {"seewide": (".safetensors",), "authors": (".pth", ".pt")}

State = dict[str, Tensor]


@dataclass(frozen=True)
class Identity:
    """Which network a state dict is of."""

    model: str
    family: ModuleType
    form: str  # "training" or "merged"
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
            f"{self.path}: {facts['architecture']} in {facts['form']} form, {self.tensors} tensors "
            f"in the layout of {self.layout}, from {facts['source_file']} "
            f"(SHA-256 {facts['source_sha256']})"
        )


def convert(
    source: str | os.PathLike,
    target: str | os.PathLike,
    to: str = "seewide",
    model: str | None = None,
) -> Conversion:
    """Rewrite a checkpoint in the other key layout; neither tensors nor form change.

    Args:
        source: a safetensors or torch file, of training or merged form, in either layout.
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
            authors_state_dict(found)  # raises where the way back does not lead here
        # Clones, since safetensors refuses tensors that share memory.
        own = {key: value.clone().contiguous() for key, value in state.items()}
        content = save(own, metadata={**_header(source), **provenance})
    else:
        state = authors_state_dict(found)
        buffer = io.BytesIO()
        torch.save({"model": state}, buffer)
        content = buffer.getbuffer()
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
        state: tensors on any device, in our layout or the authors', training or merged form.
        model: the only name to try; None tries all of `seewide.list_models()`.
        hint: a text whose words are names to try first, such as the name of the file.
        origin: what errors call the state dict.

    Raises:
        InputError: no network fits, or `model` does not; the sentence then names a difference.
    """
    if model is not None and model not in list_models():
        raise unknown("model", model, list_models())
    complaints = []
    for family in FAMILIES:
        # An empty model: some families fit weights to the model's input size, we only rename.
        ours = dict(state)
        if family.AUTHORS_FORMS:
            ours = dict(family.checkpoint_filter_fn(ours, nn.Module()))
        if not all(key.startswith(("stem.", "stages.", "head.")) for key in ours):
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
    which = model or f"any of the {len(list_models())} networks of `seewide models`"
    raise InputError(f"{origin} does not have the keys and shapes of {which}")


def authors_state_dict(found: Identity) -> State:
    """The state dict under the authors' keys, from which the way back leads to the same tensors.

    Raises:
        InputError: the authors have no files of this network in this form.
    """
    forms = found.family.AUTHORS_FORMS
    if found.form not in forms:
        why = f"only {' and '.join(forms)} form" if forms else "no code was published"
        raise InputError(f"no authors' layout for {found.model} in {found.form} form: {why}")
    theirs = found.family.authors_state_dict(found.state)
    back = found.family.checkpoint_filter_fn(theirs, nn.Module())
    wrong = {k for k in back.keys() | found.state.keys() if back.get(k) is not found.state.get(k)}
    if wrong:
        raise InputError(
            f"{found.model} has keys that the authors' layout does not tell apart: {min(wrong)} "
            f"and {len(wrong) - 1} more"
        )
    return theirs


def _names(family: ModuleType, model: str | None, hint: str) -> list[str]:
    """The family's architectures, those that the hint speaks of first."""
    names = dict.fromkeys(name.partition(".")[0] for name in family.default_cfgs)
    if model is not None:
        return [model] if model in names else []
    words = re.sub(r"[^a-z0-9]+", "_", hint.lower())
    return sorted(names, key=lambda name: len(name) if name in words else 0, reverse=True)


def _forms(name: str, ours: State) -> Iterator[tuple[str, State]]:
    """Both forms of the network, without memory, if its depths are those of `ours`."""
    classes = [ours[k].shape[0] for k in _CLASSIFIERS if k in ours]
    first = f"{timm.get_pretrained_cfg(name).first_conv}.weight"
    options = {"in_chans": ours[first].shape[1]} if first in ours else {}
    net = timm.create_model(name, device="meta", num_classes=max(classes, default=0), **options)
    own = net.state_dict()
    yield "training", own
    if _blocks(own) == _blocks(ours):
        yield "merged", fuse(net).state_dict()


_CLASSIFIERS = ("head.fc.linear.weight", "head.fc.weight")  # behind a batch norm, or alone


def _blocks(state: Mapping[str, Tensor]) -> set[str]:
    return {found[0] for key in state if (found := re.match(r"stages\.\d+\.blocks\.\d+\.", key))}


def _header(path: Path) -> dict[str, str]:
    """What a safetensors file says about itself, such as the facts of a training run."""
    if path.suffix != ".safetensors":
        return {}
    with safe_open(path, framework="pt") as file:
        return file.metadata() or {}


def _hint(path: Path) -> str:
    return f"{_header(path).get('architecture', '')} {path.name}"
