"""From names to objects: a timm network, a device, mixed precision."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import timm
import torch
from timm.layers import trunc_normal_
from timm.models import get_arch_pretrained_cfgs, is_model_pretrained
from torch import nn

from seewide.errors import InputError, unknown
from seewide.models import list_models
from seewide.train.runtime import AMP
from seewide.train.stem import set_stem_stride


def build_backbone(
    name: str,
    options: dict[str, Any],
    *,
    image_size: int | None = None,
    drop_path: float = 0.0,
    layer_scale: float = 0.0,
    stem_stride: int = 0,
    model_options: Mapping[str, Any] | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """`timm.create_model`, whose refusals become sentences.

    Args:
        name: of seewide or timm, with or without a weight tag (`unireplknet_t.in1k`).
        options: of `timm.create_model`, as the task wants the network: `num_classes`,
            `features_only`, `in_chans`.
        image_size: in pixels; matters only to networks that are built for one size.
        stem_stride: see `set_stem_stride`; 0: the network's own.
        model_options: further arguments of `timm.create_model`, such as `kernel_sizes`.
        pretrained: download the weights of the tag, or of the default one.

    Raises:
        InputError: unknown name or tag, no weights, or a download that failed.
    """
    arch, _, tag = name.partition(".")
    if not timm.is_model(arch):
        everything = timm.list_models()  # too long a list to print, so only if some are near
        near = get_close_matches(name, everything, n=1, cutoff=0.5)
        raise unknown("model", name, everything if near else list_models())
    tags = [full.partition(".")[2] for full in get_arch_pretrained_cfgs(arch)]
    if tag and tag not in tags:
        raise unknown(f"weight tag of {arch}", tag, filter(None, tags))
    if pretrained and not is_model_pretrained(name):
        raise InputError(f"there are no pretrained weights for {name}")
    options = {**options, **(model_options or {})}
    if drop_path:
        options["drop_path_rate"] = drop_path
    if layer_scale:
        options["ls_init_value"] = layer_scale
    config = timm.get_pretrained_cfg(name)  # None for a network that its user registered without
    if image_size and config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
        return set_stem_stride(model, name, stem_stride) if stem_stride else model
    except TypeError as error:
        for option, key in (("drop_path_rate", "drop_path"), ("ls_init_value", "layer_scale")):
            if option in options and option in str(error):
                raise InputError(f"{name} has no {key}; set it to 0 in the recipe") from None
        if model_options:
            raise InputError(f"{name} does not take {model_options}: {error}") from None
        raise
    except (OSError, RuntimeError) as error:
        if not pretrained and "features_only" not in options:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"could not build {name}: {reason}") from error


def has_layer_scale(name: str) -> bool:
    """Whether the initial value of a network's layer scale can be chosen.

    Unknown networks have one here, so that building them says what is wrong.
    """
    try:
        with torch.device("meta"):
            timm.create_model(name.partition(".")[0], ls_init_value=0.1)
    except TypeError as error:
        return "ls_init_value" not in str(error)
    except (RuntimeError, NotImplementedError):
        return True
    return True


def init_by_fan_in(backbone: nn.Module) -> None:
    """Initialize convolutions and linear layers except the classifier with std 1 / sqrt(fan-in).

    The papers' 0.02 suits wide networks and hundreds of epochs. In 40 channels it makes the input
    of a GELU so small that the network is linear for its first hundreds of steps. Networks with
    batch norm only (LSNet, RepViT) are left as they are: in front of batch norm the scale of a
    weight decides only its effective learning rate.
    """
    if not any(isinstance(module, nn.LayerNorm) for module in backbone.modules()):
        return
    skipped = classifiers_of(backbone)
    for module in backbone.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module not in skipped:
            trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)


def classifiers_of(backbone: nn.Module) -> tuple[nn.Module, ...]:
    """The classifier of a timm network; two of a distilled one; none of a feature extractor."""
    if not hasattr(backbone, "get_classifier"):
        return ()
    found = backbone.get_classifier()
    return tuple(m for m in (found if isinstance(found, tuple) else (found,)) if m is not None)


def use_grad_checkpointing(backbone: nn.Module, name: str) -> None:
    """Have the blocks recompute their activations in the backward pass."""
    try:
        backbone.set_grad_checkpointing(True)
    except (AttributeError, AssertionError):
        raise InputError(f"{name} does not support gradient checkpointing") from None


@torch.no_grad()
def check_input(model: nn.Module, name: str, example: torch.Tensor) -> None:
    """Refuse an input shape that the model cannot take, before it costs anything."""
    training = model.training
    try:
        model.eval()(example)
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        shape = " x ".join(map(str, example.shape[1:]))
        raise InputError(f"{name} cannot take inputs of {shape}: {reason}") from None
    finally:
        model.train(training)


def resolve_device(name: str) -> torch.device:
    """`auto` is the accelerator if there is one, otherwise the CPU."""
    available = ["cpu"]
    if torch.cuda.is_available():
        available += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        available.append("mps")
    if name == "auto":
        return torch.device(available[1] if len(available) > 1 else "cpu")
    if name not in available:
        raise InputError(f"device {name!r} is not available; auto, {', '.join(available)} are")
    return torch.device(name)


# accelerate's own default, "no", is not a wish of the user.
ACCELERATE_AMP = {"bf16": "bf16", "fp16": "fp16"}


@dataclass(frozen=True)
class Precision:
    """Mixed precision: bf16 where the device supports it, otherwise fp16 with a scaled loss."""

    device: torch.device
    dtype: torch.dtype | None

    @classmethod
    def of(cls, device: torch.device, amp: str) -> Precision:
        """`auto`: on CUDA only, since most CPUs emulate bf16, unless `accelerate launch
        --mixed_precision` says otherwise. `bf16`, `fp16`. `off`: float32.
        """
        if amp not in AMP:
            raise unknown("--amp", amp, AMP)
        if amp == "auto":
            amp = ACCELERATE_AMP.get(os.environ.get("ACCELERATE_MIXED_PRECISION", ""), "auto")
        if amp == "auto" and device.type == "cuda":
            amp = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        if amp == "fp16" and device.type == "cpu":
            raise InputError("--amp fp16 needs a GPU; a CPU supports bf16 or off")
        return cls(device, {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp))

    @property
    def name(self) -> str:
        """As accelerate spells it."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.dtype, "no")

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __str__(self) -> str:
        return f"{self.device}, {'float32' if self.dtype is None else str(self.dtype)[6:]}"


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
