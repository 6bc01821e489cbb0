"""The authors' checkpoints of whole systems: reading them, and their key layout both ways.

Heads and necks have the authors' key names; a backbone's keys go through the conversion of its
family, and its per-map norms stand beside it (`backbone.norm0` is our `out_norms.0`).
"""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Mapping
from types import ModuleType

from timm.models import PretrainedCfg
from torch import Tensor, nn

from ..checkpoints import differences, read_state_dict, unwrap
from ..errors import InputError, unknown
from ..models import FAMILIES
from ..models._hub import fetch
from .backbone import feature_key, network_key

State = dict[str, Tensor]

_LSNET = "jameslahm/lsnet"
_UNIREPLKNET = "DingXiaoH/UniRepLKNet"


def _weights() -> dict[tuple[str, str], dict[str, tuple[str, str]]]:
    """(system, backbone) -> {tag: (repository of the hub, file)}; `*` stands for a printed score
    that is not known."""
    table = {}
    systems = {"retinanet": "coco_1x", "maskrcnn": "coco_1x", "semfpn": "ade20k_40k"}
    names = {"maskrcnn": "mask_rcnn", "semfpn": "semantic_fpn"}
    for size in "tsb":
        for theirs, tag in systems.items():
            files = {tag: (_LSNET, f"lsnet_{size}_{theirs}.pth")}
            table[names.get(theirs, theirs), f"lsnet_{size}"] = files
    cascade = {
        "t": {"in1k_coco_3x": "t_in1k_3x_coco_ap51.75"},
        "s": {"in22k_coco_3x": "s_in22k_3x_coco_ap*", "in1k_coco_3x": "s_in1k_3x_coco_ap*"},
        "b": {"in22k_coco_3x": "b_in22k_3x_coco_ap*"},
        "l": {"in22k_coco_3x": "l_in22k_3x_coco_ap*"},
        "xl": {"in22k_coco_3x": "xl_in22k_3x_coco_ap56.39"},
    }
    for size, tags in cascade.items():
        table["cascade_mask_rcnn", f"unireplknet_{size}"] = {
            tag: (_UNIREPLKNET, f"casc_mask_rcnn_unireplknet_{file}.pth")
            for tag, file in tags.items()
        }
    upernet = {
        "t": ("in1k_ade20k_512_160k", "t_512_160k_ade20k_miou48.56"),
        "b": ("in22k_ade20k_640_160k", "b_in22k_640_160k_ade20k_miou53.52"),
    }
    for size, (tag, file) in upernet.items():
        files = {tag: (_UNIREPLKNET, f"upernet_unireplknet_{file}.pth")}
        table["upernet", f"unireplknet_{size}"] = files
    return table


WEIGHTS = _weights()
# Layers whose size depends on the number of classes.
CLASSIFIERS = ("fc_cls", "fc_reg", "conv_logits", "retina_cls", "conv_seg", "cls_convs")


def load_pretrained(model: nn.Module, system: str, backbone: str, tag: bool | str = True) -> None:
    """Load the authors' weights of `system` on `backbone` from the hub into `model`.

    Raises:
        InputError: no weights are published, an unknown tag, no connection, or weights that do
            not fit.
    """
    tags = WEIGHTS.get((system, backbone))
    if not tags:
        pairs = ", ".join(f"{s} on {b}" for s, b in WEIGHTS)
        raise InputError(f"no weights of {system} on {backbone} are published; there are {pairs}")
    name = next(iter(tags)) if tag is True else tag
    if name not in tags:
        raise unknown(f"weight tag of {system} on {backbone}", str(name), tags)
    repository, pattern = tags[name]
    config = PretrainedCfg(
        architecture=f"{system} on {backbone}",
        tag=str(name),
        hf_hub_id=repository,
        hf_hub_filename=_resolve(repository, pattern),
    )
    load_weights(model, fetch(config), new_classes=True)


def _resolve(repository: str, pattern: str) -> str:
    """The file of a repository that matches `pattern`."""
    if "*" not in pattern:
        return pattern
    from huggingface_hub import list_repo_files

    try:
        files = fnmatch.filter(list_repo_files(repository), pattern)
    except Exception as error:  # the client's HTTP library has errors of its own
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"the files of {repository} could not be listed: {reason}") from error
    if not files:
        raise InputError(f"{repository} has no file {pattern}")
    return files[0]


def load_weights(
    model: nn.Module,
    source: str | os.PathLike | Mapping[str, Tensor],
    new_classes: bool = False,
) -> nn.Module:
    """Load a checkpoint of a whole detector or segmenter, all or nothing, and return the model.

    Args:
        model: from `create_detector` or `create_segmenter`.
        source: a file or a state dict, in the authors' key layout or ours.
        new_classes: leave layers that depend on the number of classes as they are if it differs.

    Raises:
        InputError: a file that cannot be read safely, or that does not fit.
    """
    if isinstance(source, Mapping):
        state, origin = dict(source), "the state dict"
    else:
        state, origin = read_state_dict(source), str(source)
    state = from_authors(unwrap(state), model)
    own = model.state_dict()
    if new_classes:
        for key, value in own.items():
            depends = any(name in key for name in CLASSIFIERS)
            if depends and key in state and state[key].shape != value.shape:
                state[key] = value
    complaints = differences(own, state)
    if complaints:
        raise InputError(f"{origin} does not fit {type(model).__name__}: {'; '.join(complaints)}")
    model.load_state_dict(state)
    return model


def from_authors(state: Mapping[str, Tensor], model: nn.Module) -> State:
    """The authors' state dict of a system under our keys; ours passes unchanged.

    Running averages that mmdetection stores beside the weights (`ema_...`) are left out: where
    there are any, the plain keys already hold the average.
    """
    state = {key: value for key, value in state.items() if not key.startswith("ema_")}
    family = _family(model)
    if family is None or not _is_authors(state):
        return state
    network, result = {}, {}
    for key, value in state.items():
        norm = re.match(r"backbone\.norm(\d)\.(.+)", key)
        if norm:
            result[f"out_norms.{norm[1]}.{norm[2]}"] = value
        elif key.startswith("backbone."):
            network[key.removeprefix("backbone.")] = value
        else:
            result[key] = value
    # An empty module: the conversion only renames.
    renamed = family.checkpoint_filter_fn(network, nn.Module())
    result |= {f"backbone.{feature_key(key)}": value for key, value in renamed.items()}
    return result


def to_authors(model: nn.Module, state: Mapping[str, Tensor] | None = None) -> State:
    """The state dict of `model` under the authors' keys.

    Args:
        model: from `create_detector` or `create_segmenter`.
        state: another state dict of `model`; None: its own.

    Raises:
        InputError: the backbone is of no family whose authors published files.
    """
    family = _family(model)
    if family is None or not family.AUTHORS_FORMS:
        raise InputError("there is no authors' layout for this backbone")
    network, result = {}, {}
    for key, value in (model.state_dict() if state is None else state).items():
        norm = re.match(r"out_norms\.(\d)\.(.+)", key)
        if norm:
            result[f"backbone.norm{norm[1]}.{norm[2]}"] = value
        elif key.startswith("backbone."):
            network[network_key(key.removeprefix("backbone."))] = value
        else:
            result[key] = value
    theirs = family.authors_state_dict(network)
    return {f"backbone.{key}": value for key, value in theirs.items()} | result


def _is_authors(state: Mapping[str, Tensor]) -> bool:
    return any(
        key.startswith(("backbone.patch_embed.", "backbone.downsample_layers.")) for key in state
    )


def _family(model: nn.Module) -> ModuleType | None:
    """The family that the backbone's architecture belongs to."""
    architecture = getattr(model.backbone, "pretrained_cfg", {}).get("architecture", "")
    for family in FAMILIES:
        if architecture in {name.partition(".")[0] for name in family.default_cfgs}:
            return family
    return None
