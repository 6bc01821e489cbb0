"""The operators that a model runs for one size of input, as a graph without modules.

Captured with fake tensors: nothing is computed, and the parameters need not be in memory. Every
value that does not depend on the input is a constant with a key, such as
`aten.t.default(stages.0.blocks.1.fc1.weight)`: equal keys mean equal values, whatever the size of
the input, so that programs for several sizes share their constants.
"""

from __future__ import annotations

import operator
from collections.abc import Callable

import torch
from torch import Tensor, fx, nn

aten = torch.ops.aten
RANDOM_OR_EMPTY = ("rand", "empty", "bernoulli", "dropout")


def capture(model: nn.Module, example: Tensor) -> fx.GraphModule:
    """The graph of `model(example)` in evaluation mode.

    Its first placeholders are the parameters and buffers, whose `meta["key"]` is their name, the
    last one is the input. `meta["val"]` of each node is a fake tensor of its shape and strides.

    Raises:
        Exception: whatever tracing raises for a model that cannot be captured.
    """
    # Imported here, since they bring sympy and take a second.
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.fx.experimental.proxy_tensor import make_fx

    names = [name for name, _ in _tensors(model)]
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    with mode, torch.no_grad():
        fakes = [torch.empty_like(t, device="cpu") for _, t in _tensors(model)]
        x = torch.empty_strided(example.shape, example.stride(), dtype=example.dtype)

        def call(x: Tensor, *values: Tensor):
            return torch.func.functional_call(model, dict(zip(names, values, strict=True)), (x,))

        graph_module = make_fx(call, tracing_mode="real")(x, *fakes)
    placeholders = [node for node in graph_module.graph.nodes if node.op == "placeholder"]
    for name, node in zip(names, placeholders[1:], strict=True):
        node.meta["key"] = name
    return graph_module


def skeleton(model: nn.Module) -> nn.Module:
    """The model without its weights: on the meta device, to be captured again."""
    return model.to("meta")


def weights(model: nn.Module) -> dict[str, Tensor]:
    """Name -> value of every parameter and buffer."""
    return {name: tensor.detach() for name, tensor in _tensors(model)}


def _tensors(model: nn.Module) -> list[tuple[str, Tensor]]:
    return [*model.named_parameters(), *model.named_buffers()]


def is_pure(node: fx.Node) -> bool:
    """Whether a node computes the same whenever it runs and changes nothing."""
    if node.op != "call_function":
        return False
    if node.target is operator.getitem:
        return True
    schema = getattr(node.target, "_schema", None)
    if schema is None or schema.is_mutable:
        return False
    return not any(word in schema.name for word in RANDOM_OR_EMPTY)


def key_of(node: fx.Node) -> str:
    """The key of a constant: its operator and the keys of its arguments."""
    arguments = fx.node.map_arg(node.args, lambda n: _Key(n.meta["key"]))
    options = fx.node.map_arg(node.kwargs, lambda n: _Key(n.meta["key"]))
    name = "getitem" if node.target is operator.getitem else str(node.target)
    return f"{name}{arguments!r}{options!r}"


class _Key(str):
    def __repr__(self) -> str:
        return str(self)


def evaluate(node: fx.Node, value_of: Callable[[fx.Node], object]) -> object:
    """What a constant node computes, its arguments looked up by `value_of`."""
    args = fx.node.map_arg(node.args, value_of)
    kwargs = fx.node.map_arg(node.kwargs, value_of)
    return node.target(*args, **kwargs)


def is_constant(argument: object) -> bool:
    """Whether an argument of a node does not depend on the input."""
    return not isinstance(argument, fx.Node) or "key" in argument.meta
