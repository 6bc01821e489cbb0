"""Temporary changes to a model while it is analyzed: modes, layer outputs, memory, devices."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from seewide.errors import InputError, unknown


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set evaluation mode and freeze all parameters; restore both on exit."""
    modes = {module: module.training for module in model.modules()}
    requires_grad = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, required in requires_grad.items():
            parameter.requires_grad_(required)


class MetaModel(nn.Module):
    """Runs a model on the meta device, where operators compute shapes but no values.

    The model's own tensors are neither moved nor changed.

    Args:
        model: the model whose parameters and buffers are used.
        run: input -> output, a function that uses `model`; default: `model` itself.
    """

    def __init__(self, model: nn.Module, run: Callable[[Tensor], object] | None = None):
        super().__init__()
        self.model = model
        self.run = partial(run or model)  # as a submodule it would own the tensors a second time
        state = [*model.named_parameters(), *model.named_buffers()]
        self.state = {f"model.{name}": tensor.detach().to("meta") for name, tensor in state}

    def forward(self, x: Tensor) -> object:
        return self.run(x)

    def input(self, shape: Sequence[int]) -> Tensor:
        """A meta tensor of the model's floating-point dtype."""
        floating = [t.dtype for t in self.state.values() if t.is_floating_point()]
        return torch.empty(*shape, device="meta", dtype=floating[0] if floating else None)

    def call(self, x: Tensor) -> object:
        """`run(x)` in evaluation mode, without gradients."""
        with evaluating(self.model), torch.no_grad(), input_errors(self.model, x):
            return torch.func.functional_call(self, self.state, (x,))


@contextlib.contextmanager
def input_errors(model: object, x: Tensor) -> Iterator[None]:
    """Turn torch's errors about an input that a model does not accept into an InputError."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        reason = str(error).strip().partition("\n")[0].rstrip(".")
        raise InputError(
            f"{type(model).__name__} does not accept images of shape {tuple(x.shape)}: {reason}"
        ) from error


def find_module(model: nn.Module, name: str) -> nn.Module:
    """The module called `name` in `model.named_modules()`.

    Raises:
        InputError: an unknown name.
    """
    modules = dict(model.named_modules())
    if not name or name not in modules:
        raise unknown(f"layer of {type(model).__name__}", name, filter(None, modules))
    return modules[name]


def layer_output(model: nn.Module, name: str) -> Callable[[Tensor], Tensor]:
    """A function from images to the output of the module `name`; later layers are not run.

    Raises:
        InputError: an unknown name, or, when called, a layer that is not run or returns no tensor.
    """
    module = find_module(model, name)

    def run(x: Tensor) -> Tensor:
        def stop(_module, _inputs, output):
            raise _LayerReached(output)

        handle = module.register_forward_hook(stop)
        try:
            model(x)
        except _LayerReached as reached:
            output = reached.output
        else:
            raise InputError(f"the forward pass of {type(model).__name__} does not run {name}")
        finally:
            handle.remove()
        if not isinstance(output, Tensor):
            raise InputError(f"the layer {name} returns {type(output).__name__}, not a tensor")
        return output

    return run


class _LayerReached(Exception):
    def __init__(self, output: object):
        super().__init__()
        self.output = output


@contextlib.contextmanager
def checkpointed_blocks(model: nn.Module) -> Iterator[None]:
    """Checkpoint the activations of the items of each `nn.Sequential`, on two levels.

    In the backward pass one stage at a time has the inputs of its blocks in memory, and one block
    at a time all of its activations. Each forward pass is computed three times.
    """
    blocks = set(_sequence_items(model, levels=2))
    # An in-place activation would change the checkpointed input of a block.
    in_place = [module for module in model.modules() if vars(module).get("inplace") is True]
    for block in blocks:
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)
    for module in in_place:
        module.inplace = False
    try:
        yield
    finally:
        for block in blocks:
            del block.forward  # the attribute of the instance, which hid the method of the class
        for module in in_place:
            module.inplace = True


def _sequence_items(module: nn.Module, levels: int) -> Iterator[nn.Module]:
    """Items of the outermost `levels` of nested `nn.Sequential`s."""
    for child in module.children():
        inside = type(module) is nn.Sequential
        if inside:
            yield child
        if levels > inside:
            yield from _sequence_items(child, levels - inside)
