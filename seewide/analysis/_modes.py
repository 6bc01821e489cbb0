"""A model as an object of study for a while: its modes, its layers' outputs, its memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seewide.errors import InputError, unknown


@contextlib.contextmanager
def studied(model: nn.Module) -> Iterator[None]:
    """In evaluation mode inside, its parameters needing no gradients; as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    needs = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, required in needs.items():
            parameter.requires_grad_(required)


class OnMeta(nn.Module):
    """`run`, which uses `model`, on the meta device: operators have shapes and compute nothing.

    The model's own tensors stay where they are, so this costs neither time nor memory.
    """

    def __init__(self, model: nn.Module, run: Callable[[Tensor], object] | None = None):
        super().__init__()
        self.model = model
        self.run = partial(run or model)  # as a module it would own the tensors a second time
        state = [*model.named_parameters(), *model.named_buffers()]
        self.state = {f"model.{name}": tensor.detach().to("meta") for name, tensor in state}

    def forward(self, x: Tensor) -> object:
        return self.run(x)

    def input(self, shape: Sequence[int]) -> Tensor:
        """An image batch of the model's precision."""
        floating = [t.dtype for t in self.state.values() if t.is_floating_point()]
        return torch.empty(*shape, device="meta", dtype=floating[0] if floating else None)

    def call(self, x: Tensor) -> object:
        """`run(x)` with the model in evaluation mode."""
        with studied(self.model), torch.no_grad(), taking_images(self.model, x):
            return torch.func.functional_call(self, self.state, (x,))


@contextlib.contextmanager
def taking_images(model: object, x: Tensor) -> Iterator[None]:
    """What torch says of an input that a model cannot take, as one sentence."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"{type(model).__name__} does not take images of shape {tuple(x.shape)}: {reason}"
        ) from error


def named_module(model: nn.Module, name: str) -> nn.Module:
    """The module of that name in `model.named_modules()`."""
    modules = dict(model.named_modules())
    if not name or name not in modules:
        raise unknown(f"layer of {type(model).__name__}", name, filter(None, modules))
    return modules[name]


def output_of(model: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    """images -> what the module `name` returns; nothing after it is computed."""
    module = named_module(model, name)

    def run(x: Tensor) -> Tensor:
        def stop(_module, _inputs, output):
            raise _Arrived(output)

        handle = module.register_forward_hook(stop)
        try:
            model(x)
        except _Arrived as arrived:
            output = arrived.output
        else:
            raise InputError(f"the layer {name} of {type(model).__name__} is not reached")
        finally:
            handle.remove()
        if not isinstance(output, Tensor):
            raise InputError(f"the layer {name} returns {type(output).__name__}, not a tensor")
        return output

    return run


class _Arrived(Exception):
    def __init__(self, output: object):
        super().__init__()
        self.output = output


@contextlib.contextmanager
def recomputed(model: nn.Module) -> Iterator[None]:
    """Inside, what stands in an `nn.Sequential` keeps its input only and is computed again.

    On two levels, stages and their blocks: on the way back one stage at a time has the inputs of
    its blocks, and one block at a time all that it computes. A forward pass is done three times.
    """
    blocks = set(_sequence_items(model, levels=2))
    # An activation that works in place would change the input that a block keeps.
    in_place = [module for module in model.modules() if vars(module).get("inplace") is True]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    for module in in_place:
        module.inplace = False
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the instance's; the class has its own
        for module in in_place:
            module.inplace = True


def _sequence_items(module: nn.Module, levels: int) -> Iterator[nn.Module]:
    """What stands in the outermost `levels` of nested sequences."""
    for child in module.children():
        inside = type(module) is nn.Sequential
        if inside:
            yield child
        if levels > inside:
            yield from _sequence_items(child, levels - inside)
