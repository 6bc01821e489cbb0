"""How a run is carried out, as opposed to what is learned (`seewide.recipes.Recipe`)."""

from __future__ import annotations

import os
from dataclasses import dataclass

from seewide.options import check, option

AMP = ("auto", "bf16", "fp16", "off")


@dataclass(frozen=True)
class Runtime:
    """Options of a run that are not part of its recipe.

    Those with `may_change` may differ when a run is resumed: they do not change what is learned, or
    only up to rounding.
    """

    seed: int = option(0, "Random seed.", least=0, flag=True)
    pretrained: bool = option(False, "Start from the published weights of the model.", flag=True)
    checkpoint: str = option(
        "", "Start from the weights of a run folder or of a file.", flag=True, metavar="RUN|FILE"
    )
    device: str = option(
        "auto", "auto, cpu, cuda, cuda:1 or mps.", may_change=True, flag=True, metavar="DEVICE"
    )
    workers: int = option(
        -1,
        "Worker processes that read samples, per training process (-1: half of the CPUs, at most "
        "8, and none for data in memory).",
        least=-1,
        may_change=True,
        flag=True,
    )
    amp: str = option(
        "auto",
        "Mixed precision. auto: bf16 on CUDA (fp16 where there is no bf16), float32 elsewhere.",
        choices=AMP,
        flag=True,
    )
    compile: bool = option(
        False, "Compile the model with torch.compile.", may_change=True, flag=True
    )
    shard: bool = option(
        False,
        "Shard weights, gradients and optimizer state over the processes (FSDP2).",
        may_change=True,
        flag=True,
    )
    channels_last: bool = option(
        False, "Use the channels_last (NHWC) memory format.", may_change=True, flag=True
    )
    grad_checkpointing: bool = option(
        False,
        "Recompute activations in the backward pass (saves memory, slower; batch norm statistics "
        "are then updated twice per step, as in timm).",
        may_change=True,
        flag=True,
    )
    save_every: int = option(
        0,
        "Also save a checkpoint every N optimizer steps (0: only at the end of an epoch).",
        least=0,
        may_change=True,
        flag=True,
    )
    keep_every: int = option(
        0,
        "Also retain the weights of every N-th epoch (0: only the best and the last).",
        least=0,
        may_change=True,
        flag=True,
    )
    nan: str = option(
        "stop",
        "What to do when a loss or gradient is NaN or infinite: stop, or skip the optimizer step.",
        choices=("stop", "skip"),
        may_change=True,
        flag=True,
    )
    broken: float = option(
        0.01,
        "Fraction of the samples that may be unreadable; these are skipped, see broken.txt.",
        least=0,
        most=1,
        may_change=True,
        flag=True,
    )
    tensorboard: bool = option(
        False, "Also write TensorBoard logs to the run folder.", may_change=True, flag=True
    )
    tracker: str = option(
        "",
        "Also log to an experiment tracker, as accelerate spells it: wandb, mlflow, trackio ...",
        may_change=True,
        flag=True,
        metavar="NAME",
    )

    def __post_init__(self) -> None:
        check(self)

    def worker_count(self, in_memory: bool) -> int:
        """`workers`, or the default for data in memory or on disk."""
        if self.workers >= 0:
            return self.workers
        return 0 if in_memory else min(8, (os.cpu_count() or 1) // 2)
