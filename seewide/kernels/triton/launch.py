"""How the kernels of this folder are registered, configured and launched.

Configurations. Each kernel's file lists a few candidates for a class of shapes, likeliest first.
On its first call for a class, `choose` times them and keeps the winner, also on disk
(`$XDG_CACHE_HOME/seewide/triton` or `~/.cache/seewide/triton`, a file per GPU and Triton version,
replaced in one step). `SEEWIDE_AUTOTUNE=0` switches that off: then, in Triton's interpreter and
while a CUDA graph is captured, the first one is taken.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
import triton
from torch import Tensor

from ...errors import InputError, write_atomically
from .._custom_op import custom_op


@dataclass(frozen=True)
class Config:
    """Tile sizes of a kernel, by the names of its constants, and warps and pipeline stages."""

    tiles: dict[str, int] = field(default_factory=dict)
    warps: int = 4
    stages: int = 3


def launch(kernel, programs: int, *args, config: Config, **constants) -> None:
    """Start `programs` programs of `kernel`, on the device of its first argument.

    All grids are flat: only their first axis may exceed 65535.
    """
    if programs == 0:
        return
    device = args[0].device
    with torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext():
        kernel[(programs,)](
            *args,
            **constants,
            **config.tiles,
            num_warps=config.warps,
            num_stages=config.stages,
            enable_fp_fusion=True,  # Triton 3.10 multiplies and adds in two instructions without
        )


def operator(name: str, schema: str, fake: Callable) -> Callable[[Callable], Callable]:
    """Decorator: makes a host function the torch operator `seewide::<name>_triton`.

    Args:
        name: of the operator.
        schema: its arguments and results, as `torch.library` writes them.
        fake: the same arguments to empty results of the right shapes and strides.
    """

    def decorate(function: Callable) -> Callable:
        return custom_op(f"{name}_triton", schema, fake, function)

    return decorate


def choose(
    kernel: str,
    shapes: tuple,
    configs: Sequence[Config],
    run: Callable[[Config], object],
    device: torch.device,
) -> Config:
    """The fastest of `configs`: remembered, or measured now by `run(config)`.

    Args:
        kernel: its name.
        shapes: what tells one class of shapes from another: strings and numbers.
        configs: candidates, likeliest first.
        run: launches the kernel with a configuration.
        device: where.
    """
    if len(configs) == 1 or device.type != "cuda" or os.environ.get("SEEWIDE_AUTOTUNE") == "0":
        return configs[0]
    known = _Known.on(device)
    key = f"{kernel} {' '.join(map(str, shapes))}"
    config = known.get(key, configs)
    if config is None:
        if torch.cuda.is_current_stream_capturing():
            return configs[0]
        with torch.cuda.device(device):
            config = min(configs, key=lambda each: _milliseconds(run, each))
        known.put(key, config)
    return config


def _milliseconds(run: Callable[[Config], object], config: Config) -> float:
    try:
        run(config)
    except triton.runtime.errors.OutOfResources:  # of a smaller GPU than the lists are made for
        return float("inf")
    return triton.testing.do_bench(lambda: run(config), warmup=5, rep=20, return_mode="median")


class _Known:
    """Chosen configurations of one GPU model, in memory and on disk."""

    by_file: dict[Path, _Known] = {}  # noqa: RUF012 (shared on purpose)

    def __init__(self, file: Path):
        self.file = file
        self.configs: dict[str, dict] = {}
        self.read()

    def read(self) -> None:
        """Read the configurations that other processes wrote to the file."""
        with contextlib.suppress(OSError, ValueError, TypeError):  # none yet, or not ours
            self.configs = dict(json.loads(self.file.read_text())) | self.configs

    @classmethod
    def on(cls, device: torch.device) -> _Known:
        gpu = "-".join(torch.cuda.get_device_name(device).split()).replace("/", "-")
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        file = cache / "seewide" / "triton" / f"{gpu}-triton{triton.__version__}.json"
        if file not in cls.by_file:
            cls.by_file[file] = cls(file)
        return cls.by_file[file]

    def get(self, key: str, configs: Sequence[Config]) -> Config | None:
        """None too if what was chosen is no longer among `configs`."""
        chosen = self.configs.get(key)
        return next((config for config in configs if asdict(config) == chosen), None)

    def put(self, key: str, config: Config) -> None:
        self.configs[key] = asdict(config)
        self.read()
        text = json.dumps(self.configs, indent=1, sort_keys=True)
        with contextlib.suppress(InputError):  # a read-only home: measured anew in each process
            write_atomically(self.file, lambda path: path.write_text(text))


def wgmma(device: torch.device) -> bool:
    """Whether tensor cores read shared memory by themselves (sm_90), which saves registers."""
    return device.type != "cuda" or torch.cuda.get_device_capability(device) >= (9, 0)


def is_channels_last(x: Tensor) -> bool:
    """Whether `x` is channels_last and not also contiguous."""
    return x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()


def layout_of(x: Tensor) -> torch.memory_format:
    """The memory format of `x`, which its result must have."""
    return torch.channels_last if is_channels_last(x) else torch.contiguous_format
