"""From names to things: a model by its timm name, a device, the way of mixed precision."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches

import timm
import torch
from timm.data import resolve_data_config
from timm.layers import trunc_normal_
from timm.models import get_arch_pretrained_cfgs, is_model_pretrained
from torch import nn

from seewide.errors import InputError, unknown
from seewide.models import list_models
from seewide.train.stem import set_stem_stride


def build_model(
    name: str,
    num_classes: int | None,
    image_size: int,
    *,
    drop_path: float = 0.0,
    layer_scale: float = 0.0,
    stem_stride: int = 0,
    pretrained: bool = False,
) -> nn.Module:
    """`timm.create_model`, whose refusals become sentences.

    Args:
        name: of seewide or timm, with or without a weight tag (`unireplknet_t.in1k`).
        num_classes: None keeps the number that the weights were made for.
        image_size: matters only to models that are built for one.
        stem_stride: see `set_stem_stride`; 0 keeps the model's own.
        pretrained: download the weights of the tag, or of the default one.

    Raises:
        InputError: unknown model or tag, no weights, or a download that failed.
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
    options: dict[str, object] = {}
    if num_classes is not None:
        options["num_classes"] = num_classes
    if drop_path:
        options["drop_path_rate"] = drop_path
    if layer_scale:
        options["ls_init_value"] = layer_scale
    config = timm.get_pretrained_cfg(name)  # None for a network that its user registered without
    if config is not None and config.fixed_input_size:
        options["img_size"] = image_size
    try:
        model = timm.create_model(name, pretrained=pretrained, **options)
        return set_stem_stride(model, name, stem_stride) if stem_stride else model
    except TypeError as error:
        for option, key in (("drop_path_rate", "drop_path"), ("ls_init_value", "layer_scale")):
            if option in options and option in str(error):
                raise InputError(f"{name} has no {key}; set it to 0 in the recipe") from None
        raise
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"could not get the weights of {name}: {reason}") from error


def draw_by_fan_in(model: nn.Module) -> None:
    """Draw all convolutions and linear layers but the classifier with std 1 / sqrt(fan-in).

    The papers' 0.02 suits wide networks and hundreds of epochs. In 40 channels it leaves what
    enters a GELU so small that the network is linear for its first hundreds of updates.

    Networks of batch norm alone (LSNet, RepViT) keep their weights: in front of batch norm the size
    of a weight decides only how slowly it turns.
    """
    if not any(isinstance(module, nn.LayerNorm) for module in model.modules()):
        return
    classifier = model.get_classifier()
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)) and module is not classifier:
            trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)


def use_grad_checkpointing(model: nn.Module, name: str) -> None:
    """Have the blocks compute their activations anew in backward: less memory, more time."""
    try:
        model.set_grad_checkpointing(True)
    except (AttributeError, AssertionError):
        raise InputError(f"{name} has no gradient checkpointing") from None


@torch.no_grad()
def check_image_size(model: nn.Module, name: str, image_size: int) -> None:
    """Refuse a size that the model cannot take, before it costs anything."""
    training = model.training
    try:
        model.eval()(torch.zeros(1, 3, image_size, image_size))
    except (RuntimeError, AssertionError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise InputError(f"{name} cannot take pictures of {image_size} px: {reason}") from None
    finally:
        model.train(training)


def mean_and_std(model: nn.Module) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """What the model's weights expect of pictures, by its `pretrained_cfg`."""
    config = resolve_data_config(model=model)
    return tuple(config["mean"]), tuple(config["std"])


def resolve_device(name: str) -> torch.device:
    """`auto` is the accelerator where there is one, otherwise the CPU."""
    have = ["cpu"]
    if torch.cuda.is_available():
        have += ["cuda", *(f"cuda:{index}" for index in range(torch.cuda.device_count()))]
    if torch.backends.mps.is_available():
        have.append("mps")
    if name == "auto":
        return torch.device(have[1] if len(have) > 1 else "cpu")
    if name not in have:
        raise InputError(f"device {name!r} is not here; there is auto, {', '.join(have)}")
    return torch.device(name)


AMP = ("auto", "bf16", "fp16", "off")
LAUNCHED = {"bf16": "bf16", "fp16": "fp16"}  # accelerate's "no" is a default, not a wish


@dataclass(frozen=True)
class Precision:
    """Mixed precision: bf16 where the device has it, fp16 with a scaled loss where not."""

    device: torch.device
    dtype: torch.dtype | None

    @classmethod
    def of(cls, device: torch.device, amp: str) -> Precision:
        """`auto`: on CUDA only, since CPUs mostly emulate bf16, unless `accelerate launch
        --mixed_precision` says otherwise. `bf16`, `fp16`. `off`: float32.
        """
        if amp not in AMP:
            raise unknown("--amp", amp, AMP)
        if amp == "auto":
            amp = LAUNCHED.get(os.environ.get("ACCELERATE_MIXED_PRECISION", ""), "auto")
        if amp == "auto" and device.type == "cuda":
            amp = "bf16" if torch.cuda.is_bf16_supported() else "fp16"
        if amp == "fp16" and device.type == "cpu":
            raise InputError("--amp fp16 needs a GPU; on the CPU there is bf16 or off")
        return cls(device, {"bf16": torch.bfloat16, "fp16": torch.float16}.get(amp))

    @property
    def name(self) -> str:
        """In accelerate's words."""
        return {torch.bfloat16: "bf16", torch.float16: "fp16"}.get(self.dtype, "no")

    def autocast(self) -> contextlib.AbstractContextManager:
        if self.dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.dtype)

    def __str__(self) -> str:
        return f"{self.device}, {'float32' if self.dtype is None else str(self.dtype)[6:]}"


def count_parameters(parameters: Iterable[nn.Parameter]) -> int:
    return sum(parameter.numel() for parameter in parameters)
