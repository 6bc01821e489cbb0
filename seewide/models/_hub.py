"""Published weights: download from the authors' address, verification and loading.

`build` is used instead of timm's `build_model_with_cfg`. timm builds the network, adapts the first
convolution and the classifier, and loads the weights; the file is handled here: the hub's client
downloads it, its SHA-256 is compared with the published one and shown, and it is read without
unpickling code. The client caches files and resumes after a broken connection; a download that was
killed starts from the beginning, since the client keeps no partial files.
"""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import (
    build_model_with_cfg,
    get_arch_pretrained_cfgs,
    get_pretrained_cfg,
    load_pretrained,
)
from timm.models._hub import check_cached_file, download_cached_file
from timm.models._pretrained import PretrainedCfg
from torch import Tensor, nn

from .._version import __version__
from ..checkpoints import read_state_dict, sha256, unwrap
from ..errors import InputError, unknown

Convert = Callable[[Mapping[str, Tensor], nn.Module], Mapping[str, Tensor]]

# The default outputs of `features_only=True`: those of four stages.
FOUR_MAPS = {"out_indices": (0, 1, 2, 3), "flatten_sequential": True}

_logger = logging.getLogger(__name__)


def imagenet_cfg(image_size: int = 224, **kwargs: Any) -> dict[str, Any]:
    """The configuration of weights trained on ImageNet, for `generate_default_cfgs`.

    Evaluation follows the authors' code, which descends from ConvNeXt's: from 384 pixels on, the
    image is resized to a square without keeping its aspect ratio ("squash"); below, the shorter
    side is resized to `image_size / 0.875` and the centre is cropped.

    Args:
        image_size: height and width of the input.
        kwargs: entries that differ or that only these weights have.
    """
    squash = image_size >= 384
    return {
        "url": "",
        "num_classes": 1000,
        "input_size": (3, image_size, image_size),
        "pool_size": (image_size // 32, image_size // 32),
        "crop_pct": 1.0 if squash else 0.875,
        "crop_mode": "squash" if squash else "center",
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0",
        "classifier": "head.fc",
        **kwargs,
    }


def build(
    model_cls: type[nn.Module],
    variant: str,
    pretrained: bool,
    pretrained_filter_fn: Convert = lambda state_dict, model: state_dict,
    pretrained_cfg: str | Mapping[str, Any] | PretrainedCfg | None = None,
    pretrained_cfg_overlay: Mapping[str, Any] | None = None,
    feature_cfg: Mapping[str, Any] = FOUR_MAPS,
    **kwargs,
) -> nn.Module:
    """timm's `build_model_with_cfg` with the same arguments; `fetch` downloads published weights.

    Weights of the caller (`pretrained_cfg_overlay={"file": ...}`, `hf-hub:` and `local-dir:` names)
    are loaded by timm.

    Raises:
        InputError: an unknown tag, no published weights, no connection, no such file, a wrong
            hash, a damaged file, one that needs code to be read, or weights that do not fit.
    """
    config = _config(variant, pretrained_cfg, pretrained_cfg_overlay or {})

    def convert(state_dict: Mapping[str, Any], model: nn.Module) -> Mapping[str, Tensor]:
        return pretrained_filter_fn(unwrap(state_dict), model)

    def with_weights(**arguments) -> nn.Module:
        model = model_cls(**arguments)
        _load(model, config, convert, kwargs)
        return model

    ours = pretrained and not _elsewhere(config)
    return build_model_with_cfg(
        with_weights if ours else model_cls,
        variant,
        pretrained and not ours,
        pretrained_cfg=config,
        pretrained_filter_fn=convert,
        feature_cfg=dict(feature_cfg),
        **kwargs,
    )


def fetch(config: PretrainedCfg, cache_dir: str | Path | None = None) -> Path:
    """The path of the file that `config` names, downloaded unless it is in the cache.

    A new download is compared with its published hash (the hub's ETag, or the digits at the end of
    its name), and its SHA-256 is printed to stderr, unless the hub's progress bars are disabled.

    Args:
        config: with `hf_hub_id` and `hf_hub_filename`, or with `url`.
        cache_dir: instead of the hub's cache, or torch's for a `url`.

    Raises:
        InputError: no connection, no such file, or a wrong hash; the message says what to do.
    """
    if config.hf_hub_id:
        path, expected = _from_hub(config, cache_dir)
    else:
        path, expected = _from_url(config, cache_dir)
    if expected is None:  # was in the cache
        return path
    digest = sha256(path)
    if expected and not digest.startswith(expected):
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise InputError(
            f"the download of {path.name} for {_name(config)} is corrupt: its SHA-256 is {digest}, "
            f"published is {expected}; it was deleted, so try again"
        )
    verdict = "as published" if expected else "no published hash to compare with"
    _show(f"{path.name}: {path.stat().st_size:,} bytes, SHA-256 {digest} ({verdict})")
    return path


def _config(variant: str, chosen: Any, overlay: Mapping[str, Any]) -> PretrainedCfg:
    """The configuration that timm would choose; an unknown tag is an InputError."""
    if isinstance(chosen, Mapping):
        chosen = PretrainedCfg(**chosen)
    elif not isinstance(chosen, PretrainedCfg):
        known = get_arch_pretrained_cfgs(variant)
        if chosen and f"{variant}.{chosen}" not in known:
            tags = [name.partition(".")[2] for name in known]
            raise unknown(f"weight tag of {variant}", chosen, filter(None, tags))
        chosen = get_pretrained_cfg(f"{variant}.{chosen}" if chosen else variant)
    chosen = replace(chosen, **overlay)
    return replace(chosen, architecture=chosen.architecture or variant)


def _elsewhere(config: PretrainedCfg) -> bool:
    """Whether the caller chose weights other than the published ones."""
    named = config.file or config.state_dict or config.source
    return bool(named or (config.hf_hub_id and not config.hf_hub_filename))


def _load(
    model: nn.Module, config: PretrainedCfg, convert: Convert, kwargs: Mapping[str, Any]
) -> None:
    """Fetch, read, convert, adapt and load the weights of `config`."""
    if not config.has_weights:
        raise InputError(
            f"no weights of {config.architecture} are published at an address; build it with "
            "pretrained=False, and seewide.load_checkpoint reads a file that you have"
        )
    path = fetch(config, kwargs.get("cache_dir"))
    try:
        state_dict = read_state_dict(path)
    except InputError as error:
        raise InputError(f"{error}; delete that file to download it again") from None
    features = kwargs.get("features_only", False)
    try:
        load_pretrained(
            model,
            {**config.to_dict(), "state_dict": state_dict},
            num_classes=0 if features else model.num_classes,
            in_chans=model.in_chans,
            filter_fn=convert,
            strict=kwargs.get("pretrained_strict", True),
        )
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise InputError(f"{path.name} does not fit {_name(config)}: {reason[:300]}") from None


def _from_hub(config: PretrainedCfg, cache_dir: str | Path | None) -> tuple[Path, str | None]:
    """The file, and its expected hash: None if it was cached, '' if the hub publishes none."""
    from huggingface_hub import (
        get_hf_file_metadata,
        hf_hub_download,
        hf_hub_url,
        try_to_load_from_cache,
    )
    from huggingface_hub.errors import (
        EntryNotFoundError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    repo, _, revision = config.hf_hub_id.partition("@")
    remote = {"repo_id": repo, "filename": config.hf_hub_filename, "revision": revision or None}
    what = f"{config.hf_hub_filename}, the weights of {_name(config)},"
    by_hand = "a copy of the file can be read by seewide.load_checkpoint"
    before = try_to_load_from_cache(**remote, cache_dir=cache_dir)
    try:
        path = hf_hub_download(
            **remote, cache_dir=cache_dir, library_name="seewide", library_version=__version__
        )
        if path == before:
            return Path(path), None
        # The folder is named after the commit: compare with the hash of that very version.
        commit = Path(path).parents[config.hf_hub_filename.count("/")].name
        published = get_hf_file_metadata(hf_hub_url(**{**remote, "revision": commit})).etag or ""
    except LocalEntryNotFoundError:
        raise InputError(
            f"{what} is not in the cache and {hf_hub_url(**remote)} cannot be reached: connect to "
            f"the network once (and unset HF_HUB_OFFLINE); {by_hand}"
        ) from None
    except EntryNotFoundError:
        raise InputError(
            f"{what} is not in {repo} on the hub, where its authors had it: {by_hand}"
        ) from None
    except RepositoryNotFoundError:
        raise InputError(
            f"{what} has no repository {repo} on the hub, or not one that is public: {by_hand}"
        ) from None
    except Exception as error:  # errors of the client's HTTP library, which may be any
        raise InputError(
            f"{what} could not be downloaded from {repo}: {_first_line(error)}; try again, or "
            f"{by_hand}"
        ) from error
    # The ETag of large files is their SHA-256, that of small ones a git hash.
    return Path(path), published if re.fullmatch(r"[0-9a-f]{64}", published) else ""


def _from_url(config: PretrainedCfg, cache_dir: str | Path | None) -> tuple[Path, str | None]:
    """As `_from_hub`, for a URL whose file name ends with digits of the hash."""
    new = not check_cached_file(config.url, check_hash=False, cache_dir=cache_dir)
    try:
        path = Path(download_cached_file(config.url, check_hash=False, cache_dir=cache_dir))
    except Exception as error:
        if isinstance(error, HTTPError):
            error.close()  # it holds the connection
        raise InputError(
            f"the weights of {_name(config)} could not be downloaded from {config.url}: "
            f"{_first_line(error)}; a copy of the file can be read by seewide.load_checkpoint"
        ) from error
    digits = re.search(r"-([0-9a-f]{8,})\.", path.name)
    return path, (digits[1] if digits else "") if new else None


def _name(config: PretrainedCfg) -> str:
    return f"{config.architecture}.{config.tag}" if config.tag else str(config.architecture)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__


def _show(sentence: str) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    _logger.info(sentence)
    if not are_progress_bars_disabled():
        print(sentence, file=sys.stderr)
