"""Weights that a CLIP training run starts from: random ones, with a trained image tower."""

from __future__ import annotations

from pathlib import Path

from seewide.checkpoints.reading import read_state_dict
from seewide.errors import InputError, require, write_atomically

from .recipes import ClipRecipe
from .towers import EXTRA, quiet, register

SIGMOID_START = {"init_logit_scale": 2.302585, "init_logit_bias": -10}  # ln 10, as in SigLIP


def write_start(out: Path, recipe: ClipRecipe, weights: Path) -> Path:
    """Write the weights that training starts from: random ones, with a trained image tower.

    Args:
        weights: a run folder of `seewide train`, or a file of a state dict.

    Raises:
        InputError: no such file, or weights of another network.
    """
    open_clip = register()
    extra = SIGMOID_START if recipe.sigmoid_loss else {}
    with quiet():
        model = open_clip.create_model(f"local-dir:{out}", load_weights=False, **extra)
    state = read_state_dict(weights / "best.safetensors" if weights.is_dir() else weights)
    state = {name.removeprefix("backbone."): tensor for name, tensor in state.items()}
    trunk = model.visual.trunk
    fitting = {
        name: state[name]
        for name, tensor in trunk.state_dict().items()
        if name in state and state[name].shape == tensor.shape
    }
    missing = [name for name in trunk.state_dict() if name not in fitting]
    if missing:
        raise InputError(
            f"{weights} has no weights for {missing[0]} and {len(missing) - 1} others of the image "
            f"tower of {recipe.config}"
        )
    trunk.load_state_dict(fitting)
    save = require("safetensors.torch", EXTRA).save_file
    content = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return write_atomically(out / "start.safetensors", lambda scratch: save(content, scratch))
