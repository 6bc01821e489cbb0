"""Processes and devices: Hugging Face accelerate, and what a run needs of it.

`python -m seewide train ...` is one process without a process group; `torchrun` or `accelerate
launch` in front of the same command start as many as they are told to, on one machine or several.
Weights are replicated (DDP), or sharded over the processes (FSDP2, torch's `fully_shard`, which
accelerate offers on GPUs only, so it is called here).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs, TorchDynamoPlugin, broadcast_object_list
from accelerate.utils import gather_object as gather_objects
from timm.layers import convert_sync_batchnorm
from torch import Tensor, distributed, nn
from torch.distributed import DistError
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.utils import clip_grad_norm_, get_total_norm
from torch.optim import Optimizer

from seewide.errors import InputError
from seewide.recipes import Recipe
from seewide.train.build import Precision, count_parameters, resolve_device

TIMEOUT = 60  # seconds to wait for the slowest process, after which the others end
SHARD_FRACTION = 0.01  # of the parameters: smaller modules are sharded with their parent


def launched_rank() -> int:
    """The rank of this process as its launcher says, 0 without one."""
    return int(os.environ.get("RANK", 0))


@dataclass(frozen=True)
class BatchShape:
    """How a batch is made: `micro_batches` of `device_batch` samples on each process."""

    device_batch: int
    ranks: int
    micro_batches: int

    @classmethod
    def of(cls, recipe: Recipe, ranks: int, accumulates: bool = True) -> BatchShape:
        """The largest micro-batches that the recipe allows and that multiply to its batch size.

        Raises:
            InputError: the batch size is no multiple of the number of processes, or needs gradient
                accumulation, which the task cannot do.
        """
        share, rest = divmod(recipe.batch_size, ranks)
        if rest or not share:
            raise InputError(
                f"batch size {recipe.batch_size} does not divide among {ranks} processes; a "
                f"multiple of {ranks} does"
            )
        largest = min(recipe.device_batch or share, share)
        device_batch = next(size for size in range(largest, 0, -1) if share % size == 0)
        if device_batch != share and not accumulates:
            raise InputError(
                f"{recipe.task} needs all samples of a step at once, so device_batch must be 0 or "
                f"at least {share}, got {recipe.device_batch}"
            )
        return cls(device_batch, ranks, share // device_batch)

    @property
    def device_total(self) -> int:
        """Samples of an optimizer step on one process."""
        return self.device_batch * self.micro_batches

    def __str__(self) -> str:
        return (
            f"{self.device_total * self.ranks} = {self.device_batch} per device x {self.ranks} "
            f"{'processes' if self.ranks > 1 else 'process'} x {self.micro_batches} "
            f"micro-batch{'es' * (self.micro_batches > 1)}"
        )


class Processes:
    """The processes of a run, and everything that depends on how many there are.

    Args:
        device: `auto`, or a device of this machine; with several processes `auto` or `cpu`.
        amp: see `Precision.of`.
        compile: the model with torch.compile; also by `accelerate launch --dynamo_backend`.
        shard: weights, gradients and optimizer state over the processes; also by
            `accelerate launch --use_fsdp`.

    Raises:
        InputError: what this machine or the launcher's settings cannot do.
    """

    def __init__(
        self, device: str = "auto", amp: str = "auto", *, compile: bool = False, shard: bool = False
    ) -> None:
        chosen = resolve_device(device)
        ranks = int(os.environ.get("WORLD_SIZE", 1))
        if ranks > 1 and chosen.index is not None:
            raise InputError(
                f"{ranks} processes share the devices; --device must be auto or cpu, got {device}"
            )
        if chosen.index is not None:
            torch.cuda.set_device(chosen)
        self.precision = Precision.of(chosen, amp)
        dynamo = TorchDynamoPlugin()  # reads the settings of `accelerate launch`
        self.compile = compile or dynamo.backend.value != "NO"
        self._dynamo = dynamo.to_kwargs() if dynamo.backend.value != "NO" else {}
        # The state is one per process and cannot change; a second run may want another device.
        AcceleratorState._reset_state(reset_partial_state=True)
        self.accelerator = Accelerator(
            cpu=chosen.type == "cpu",
            mixed_precision=self.precision.name,
            dynamo_backend="no",  # only the model is compiled: mixup draws random numbers outside
            kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(seconds=TIMEOUT))],
        )
        self.device = self.accelerator.device
        self.precision = replace(self.precision, device=self.device)
        self.rank, self.ranks = self.accelerator.process_index, self.accelerator.num_processes
        self.sharded = self.ranks > 1 and (shard or os.environ.get("ACCELERATE_USE_FSDP") == "true")
        if self.sharded and self.scaler is not None:
            raise InputError("sharded weights train in bf16 or float32, not in fp16")

    @property
    def is_main_process(self) -> bool:
        """Whether this process is the one that prints and writes."""
        return self.rank == 0

    @property
    def scaler(self) -> torch.amp.GradScaler | None:
        return self.accelerator.scaler

    def __str__(self) -> str:
        many = f"{self.ranks} processes, weights {'sharded' if self.sharded else 'replicated'}, "
        compiled = ", compiled" if self.compile else ""
        return f"{many if self.ranks > 1 else ''}{self.precision}{compiled}"

    def move(self, model: nn.Module, *, sync_batch_norm: bool, channels_last: bool) -> nn.Module:
        """The model on its device, before its average and its optimizer are made of it."""
        if sync_batch_norm and self.ranks > 1 and self.device.type == "cuda":
            model = convert_sync_batchnorm(model)
        model = model.to(self.device)
        return model.to(memory_format=torch.channels_last) if channels_last else model

    def shard(self, *models: nn.Module) -> None:
        """Distribute the parameters, stage by stage, if the run is sharded; in place."""
        if not self.sharded:
            return
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard

        mesh = init_device_mesh(self.device.type, (self.ranks,))
        for model in models:
            least = SHARD_FRACTION * count_parameters(model.parameters())
            for child in model.children():
                for part in child.children():
                    if count_parameters(part.parameters()) >= least:
                        fully_shard(part, mesh=mesh)
            fully_shard(model, mesh=mesh)

    def prepare(self, loss: nn.Module, model: nn.Module, optimizer: Optimizer) -> tuple:
        """The loss module to call, which synchronizes, and the optimizer to step."""
        if self.compile:
            model.compile(**self._dynamo)
        self._synchronizing = model if self.sharded else self.accelerator.prepare_model(loss)
        called = loss if self.sharded else self._synchronizing
        return called, self.accelerator.prepare_optimizer(optimizer)

    @contextlib.contextmanager
    def micro_batch(self, last: bool) -> Iterator[None]:
        """Around forward and backward; gradients are reduced in the last micro-batch of a step."""
        with contextlib.ExitStack() as stack:
            if self.sharded:
                self._synchronizing.set_requires_gradient_sync(last)
                stack.enter_context(self.accelerator.autocast())
            elif not last:
                stack.enter_context(self.accelerator.no_sync(self._synchronizing))
            yield

    def unscale(self) -> None:
        """Undo the loss scaling of fp16 on the gradients."""
        if self.scaler is not None:
            self.accelerator.unscale_gradients()

    def gradient_norm(self, model: nn.Module, clip: float) -> Tensor:
        """Norm of the whole gradient before it is clipped to `clip` (0: not clipped)."""
        parameters = [p for p in model.parameters() if p.grad is not None]
        if clip:
            norm = clip_grad_norm_(parameters, clip)
        else:
            norm = get_total_norm([p.grad for p in parameters])
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def total(self, numbers: Sequence[float]) -> list[float]:
        """Sums over the processes, in float64."""
        if self.ranks == 1:
            return list(numbers)
        dtype = torch.float32 if self.device.type == "mps" else torch.float64
        return self.accelerator.reduce(
            torch.tensor(numbers, dtype=dtype, device=self.device)
        ).tolist()

    def gather(self, thing: Any) -> list[Any]:
        """The object of each process, in order of rank."""
        return [thing] if self.ranks == 1 else gather_objects([thing])

    def broadcast_from_main(self, thing: Any) -> Any:
        """The object of the main process."""
        return thing if self.ranks == 1 else broadcast_object_list([thing])[0]

    @contextlib.contextmanager
    def raise_on_all_ranks(self) -> Iterator[None]:
        """Around collective work: an error that ends one process ends all.

        Raises:
            InputError: another process has died or does not answer.
        """
        try:
            with warnings.catch_warnings():
                # Of weights with one channel, whose strides mean the same in both.
                warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
                yield
        except RuntimeError as error:
            if self.ranks == 1 or not (isinstance(error, DistError) or "gloo" in str(error)):
                raise
            raise InputError(
                "another process has ended or does not answer; the same command resumes from the "
                "last checkpoint"
            ) from error
        atexit.register(_leave_group)


def _leave_group() -> None:
    """At the end of the process: another run in it uses the same group."""
    if distributed.is_initialized():
        distributed.destroy_process_group()


def gather_full_state(state: Any) -> Any:
    """A nested state with the shards of all processes put together; all processes must call it."""
    if isinstance(state, DTensor):
        return state.full_tensor()
    if isinstance(state, dict):
        return {key: gather_full_state(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return type(state)(map(gather_full_state, state))
    return state


def shard_like(state: dict[Any, Any], own: dict[Any, Any]) -> dict[Any, Any]:
    """A full model state, sharded as `own` is."""
    return {key: _shard_tensor(value, own.get(key)) for key, value in state.items()}


def shard_optimizer_like(state: dict[str, Any], parameters: Sequence[Tensor]) -> dict[str, Any]:
    """A full optimizer state, sharded as its parameters are."""
    rows = {
        index: {key: _shard_tensor(value, parameters[index]) for key, value in row.items()}
        for index, row in state["state"].items()
    }
    return {**state, "state": rows}


def _shard_tensor(value: Any, own: Any) -> Any:
    if isinstance(own, DTensor) and isinstance(value, Tensor) and value.shape == own.shape:
        return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)
    return value
