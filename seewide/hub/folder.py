"""Write a model folder, and read one from the disk or the hub."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import timm
from torch import nn

from ..checkpoints import load_checkpoint, read_metadata, save_safetensors
from ..errors import InputError, write_atomically
from .card import model_card

CONFIG, WEIGHTS, CARD = "config.json", "model.safetensors", "README.md"
BRIDGE = "modeling_seewide.py"
FILES = (CONFIG, WEIGHTS, CARD, BRIDGE)

# timm passes these itself; transformers fails on a value that it gets twice.
NOT_ARGUMENTS = ("num_classes", "in_chans", "global_pool", "pretrained", "pretrained_cfg")


def save_pretrained(
    model: nn.Module,
    folder: str | os.PathLike,
    labels: Sequence[str] | None = None,
    preprocess: Mapping[str, Any] | None = None,
    model_args: Mapping[str, Any] | None = None,
    metadata: Mapping[str, str] | None = None,
    **card: Any,
) -> Path:
    """Write a model so that seewide, timm and transformers load it; returns the folder.

    Args:
        model: a network that `timm.create_model` built, not fused.
        folder: is made if absent; files of the same names are replaced.
        labels: a name per class.
        preprocess: `Preprocess.to_dict()`; the network's own evaluation settings if absent.
        model_args: arguments of `create_model` beside the number of classes and channels.
        metadata: text for the header of the weights, such as the facts of a run.
        card: what `seewide.hub.model_card` writes into README.md: metrics, recipe, license ...

    Raises:
        InputError: a model that timm did not build, a fused one, or labels that do not fit.
    """
    config = dict(getattr(model, "pretrained_cfg", None) or {})
    architecture = config.get("architecture")
    if not architecture or not timm.is_model(architecture):
        raise InputError(
            f"{type(model).__name__} is no network of timm.create_model, which is what the folder "
            "lets others build again"
        )
    classes = int(getattr(model, "num_classes", 0))
    if labels is not None and len(labels) != classes:
        raise InputError(f"the model has {classes} classes, got {len(labels)} labels")
    channels = int(getattr(model, "in_chans", 3))
    arguments = {k: v for k, v in (model_args or {}).items() if k not in NOT_ARGUMENTS}
    fresh = timm.create_model(
        architecture, num_classes=classes, in_chans=channels, device="meta", **arguments
    )
    if fresh.state_dict().keys() != model.state_dict().keys():
        raise InputError(
            f"the weights are not those of a training {architecture}: save the model before fusing "
            "it, and name the arguments it was built with in model_args"
        )
    size = (preprocess or {}).get("image_size")
    pretrained = {
        key: config[key]
        for key in ("tag", "first_conv", "classifier", "pool_size", "fixed_input_size")
        if config.get(key) is not None
    }
    pretrained |= {
        key: (preprocess or config).get(key, config.get(key))
        for key in ("interpolation", "crop_pct", "crop_mode", "mean", "std")
    }
    height, width = (size, size) if size else config.get("input_size", (3, 224, 224))[1:]
    pretrained["input_size"] = [channels, height, width]
    names = list(labels) if labels is not None else [f"class {i}" for i in range(classes)]
    content = {
        "architecture": architecture,
        "num_classes": classes,
        "num_features": int(getattr(model, "num_features", 0)),
        "label_names": names,
        "pretrained_cfg": {k: v for k, v in pretrained.items() if v is not None},
        **({"model_args": arguments} if arguments else {}),
        "model_type": "seewide",
        "image_processor_type": "TimmWrapperImageProcessor",
        "architectures": ["SeewideForImageClassification"],
        "auto_map": {
            "AutoConfig": "modeling_seewide.SeewideConfig",
            "AutoModel": "modeling_seewide.SeewideModel",
            "AutoModelForImageClassification": "modeling_seewide.SeewideForImageClassification",
        },
    }
    folder = Path(folder)
    header = {"architecture": architecture, "form": "training", **(metadata or {})}
    save_safetensors(folder / WEIGHTS, model.state_dict(), header)
    bridge = resources.files("seewide.hub.bridge").joinpath(BRIDGE).read_text(encoding="utf-8")
    text = model_card(model, architecture, names, header, **card)
    for name, written in (
        (CONFIG, json.dumps(content, indent=2) + "\n"),
        (BRIDGE, bridge),
        (CARD, text),
    ):
        _write(folder / name, written)
    return folder


def from_pretrained(
    source: str | os.PathLike,
    revision: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    **kwargs: Any,
) -> nn.Module:
    """The model of a folder of `save_pretrained`, in evaluation mode.

    Args:
        source: the folder, or a repository on the hub, `OWNER/NAME`.
        revision: branch, tag or commit of the repository.
        cache_dir: instead of the hub's cache.
        kwargs: for `timm.create_model`, such as `drop_path_rate`.

    The class names are in `model.pretrained_cfg["label_names"]`.

    Raises:
        InputError: no such folder or repository, no connection, or files that are damaged or do
            not fit each other.
    """
    folder = _folder(source, revision, cache_dir)
    path = folder / CONFIG
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
        architecture, arguments = config["architecture"], config.get("model_args", {})
        overlay = {
            **config["pretrained_cfg"],
            "num_classes": config["num_classes"],
            "label_names": config.get("label_names"),
        }
        channels = int(overlay["input_size"][0])
        known = isinstance(architecture, str) and timm.is_model(architecture)
    except (OSError, ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise InputError(
            f"{path} is no configuration of a model: {type(error).__name__}: {error}"
        ) from None
    if not known:
        raise InputError(f"{path} names {architecture!r:.60}, which is no network known to timm")
    overlay = {k: tuple(v) if isinstance(v, list) else v for k, v in overlay.items()}
    try:
        model = timm.create_model(
            architecture,
            num_classes=config["num_classes"],
            in_chans=channels,
            pretrained_cfg_overlay=overlay,
            **{**arguments, **kwargs},
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path} does not build {architecture}: {error}") from None
    return load_checkpoint(model, folder / WEIGHTS).eval()


def facts(source: str | os.PathLike) -> dict[str, str]:
    """The text in the header of the weights of a model folder."""
    return read_metadata(Path(source) / WEIGHTS)


def _write(path: Path, text: str) -> None:
    write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def _folder(source: str | os.PathLike, revision: str | None, cache_dir: Any) -> Path:
    """The folder itself, or where the hub's client put the files."""
    if Path(source).is_dir():
        return Path(source)
    name = str(source)
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise InputError(f"there is no folder {name}, and a repository on the hub is OWNER/NAME")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    place: dict[str, Any] = {"revision": revision, "cache_dir": cache_dir}
    try:
        for file in (WEIGHTS, CONFIG):
            path = hf_hub_download(name, file, **place)
        return Path(path).parent
    except LocalEntryNotFoundError:
        raise InputError(
            f"{name} is not in the cache and the hub cannot be reached; connect once, or download "
            "its files and name the folder"
        ) from None
    except (HfHubHTTPError, ValueError, OSError) as error:
        reason = str(error).strip().splitlines()[0][:200] if str(error) else type(error).__name__
        raise InputError(f"{name} could not be downloaded from the hub: {reason}") from None
