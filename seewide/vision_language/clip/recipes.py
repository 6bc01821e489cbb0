"""Recipes of CLIP models: the settings of open_clip's training program, as data.

The paper prints the image tower, the text tower's size and the number of samples (10 billion from
LAION-5B), and nothing else; `paper_l` fills the rest with open_clip's practice for ConvNeXt-L.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seewide.errors import InputError, unknown
from seewide.options import check, option

PRECISIONS = ("fp32", "amp", "amp_bf16", "pure_bf16")


@dataclass(frozen=True)
class ClipRecipe:
    """Settings of a CLIP training run.

    Raises:
        InputError: a value out of range.
    """

    # The model.
    config: str = option("clip_unireplknet_t", "Configuration; `seewide clip configs` lists them.")
    tower: str = option("", "Image tower by its timm name (empty: the configuration's).")
    image_size: int = option(0, "Side of the images in pixels (0: the configuration's).", least=0)
    embed_dim: int = option(0, "Width of the common embedding (0: the configuration's).", least=0)
    text_width: int = option(0, "Width of the text tower (0: the configuration's).", least=0)
    text_layers: int = option(0, "Layers of the text tower (0: the configuration's).", least=0)
    context_length: int = option(
        0, "Longest caption in tokens; longer ones are cut (0: the configuration's).", least=0
    )
    vocabulary: int = option(
        0,
        "Train a tokenizer of at most N words on the training captions (0: the configuration's "
        "tokenizer, usually CLIP's with 49,408 tokens).",
        least=0,
    )
    drop_path: float = option(0.0, "Rate of stochastic depth in the image tower.", least=0, most=1)
    drop: float = option(0.0, "Dropout before the image projection.", least=0, below=1)

    # How long.
    epochs: int = option(32, "Number of epochs.", least=1, flag=True)
    batch_size: int = option(64, "Pairs per optimizer step and process.", least=2, flag=True)
    accumulate: int = option(
        1,
        "Micro-batches of `batch_size` pairs per optimizer step. open_clip computes the features "
        "of all of them twice: batch normalization sees every image twice, and stochastic depth "
        "differs between the two. More processes with local_loss are better.",
        least=1,
    )
    samples_per_epoch: int = option(
        0, "Samples per epoch of tar shards (0: as sizes.json counts them).", least=0
    )

    # The optimizer.
    optimizer: str = option(
        "timm/adamw",
        "adamw, or timm/NAME. timm's asks the network which parameters have no weight decay; "
        "open_clip's own adamw decays the weights of GRN.",
    )
    lr: float = option(1e-3, "Peak learning rate.", above=0, flag=True)
    beta1: float = option(0.9, "First coefficient of Adam.", least=0, below=1)
    beta2: float = option(0.98, "Second coefficient of Adam.", least=0, below=1)
    eps: float = option(1e-6, "Epsilon of Adam.", above=0)
    weight_decay: float = option(0.2, "Weight decay.", least=0)
    warmup_steps: int = option(2000, "Length of the linear warm-up in optimizer steps.", least=0)
    clip_grad: float = option(0.0, "Largest norm of the gradient (0: no clipping).", least=0)

    # The loss.
    sigmoid_loss: bool = option(
        False, "SigLIP's loss, with initial scale 10 and bias -10, instead of CLIP's."
    )
    local_loss: bool = option(
        False,
        "Each process computes its rows of the loss, with gradients through the gathered "
        "features: memory grows with N x N / processes.",
    )

    # What is trained.
    lock_image: bool = option(
        False,
        "Freeze the image tower (LiT), and with it the statistics of its batch normalization, "
        "which would move although the parameters do not.",
    )
    unlocked_groups: int = option(0, "Last groups of the image tower that stay free.", least=0)

    # How it is carried out.
    precision: str = option("amp_bf16", "Floating-point precision.", choices=PRECISIONS)
    grad_checkpointing: bool = option(False, "Recompute activations in the backward pass.")
    min_crop: float = option(
        0.9, "Least share of the image's area in a random crop.", above=0, most=1
    )
    color_jitter: float = option(
        0.0, "Strength of the random changes of brightness, contrast, saturation.", least=0
    )

    # Where it comes from.
    source: str = option("", "Where the settings are from.", may_change=True)
    hardware: str = option("", "Hardware it was used or is meant for.", may_change=True)

    def __post_init__(self) -> None:
        check(self)
        if self.unlocked_groups and not self.lock_image:
            raise InputError("unlocked_groups needs lock_image=true")
        if self.optimizer != "adamw" and not self.optimizer.startswith("timm/"):
            raise InputError(f"optimizer must be adamw or timm/NAME, got {self.optimizer!r}")


PAPER_L = ClipRecipe(
    config="clip_unireplknet_l",
    epochs=256,
    samples_per_epoch=40_000_000,
    batch_size=512,
    lr=1e-3,
    weight_decay=0.1,
    warmup_steps=10_000,
    local_loss=True,
    grad_checkpointing=True,
    drop_path=0.1,
    source="Section 4.3: UniRepLKNet-L, 10 B samples of LAION-5B. All else is open_clip's "
    "practice for ConvNeXt-L, not the paper's.",
    hardware="not printed; meant for 64 GPUs x 512 pairs",
)
LAPTOP = ClipRecipe(
    config="clip_unireplknet_a",
    image_size=48,
    epochs=5,
    batch_size=128,
    lr=1e-3,
    weight_decay=0.5,
    warmup_steps=20,
    clip_grad=1.0,
    precision="fp32",
    min_crop=0.3,
    vocabulary=2000,
    context_length=24,
    source="measured here, docs/clip.md",
    hardware="one CPU core",
)
RECIPES: dict[str, ClipRecipe] = {
    "paper_l": PAPER_L,
    "paper_l_base": replace(PAPER_L, config="clip_unireplknet_l_base"),
    "default": ClipRecipe(),
    "sigmoid": ClipRecipe(sigmoid_loss=True, source="SigLIP's loss with the default settings"),
    "locked": ClipRecipe(
        lock_image=True, source="LiT (Zhai et al., 2022): a trained tower, only the text learns"
    ),
    "laptop": LAPTOP,
}


def get_recipe(name: str) -> ClipRecipe:
    """The recipe of that name.

    Raises:
        InputError: no such recipe.
    """
    if name not in RECIPES:
        raise unknown("CLIP recipe", name, RECIPES)
    return RECIPES[name]
