"""A captured model with the fastest way for each layer, ready to run for one size of input."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, fx

from ..kernels.cpu import pointwise
from . import rewrite
from .capture import aten, evaluate
from .choices import LAYOUTS, Choices, Way, convolution_ways, product_ways

LARGE = 4096  # entries from which a weight that has another layout is not retained


class MissingWeights(Exception):
    """A constant can no longer be computed, since the weights were replaced by packed ones."""


class Constants:
    """Values by key, computed from the model's weights at the first request."""

    def __init__(self, weights: dict[str, Tensor]):
        self.weights = weights
        self.values: dict[str, object] = {}
        self.layouts: dict[str, Way] = {}  # of the weights with these keys
        self.released: set[str] = set()  # weights of which only another layout is needed

    def value(self, node: fx.Node):
        """Of a constant node of a graph."""
        key = node.meta["key"]
        if key in self.values:
            return self.values[key]
        if node.op == "placeholder":
            if key not in self.weights:
                raise MissingWeights(key)
            return self.weights[key]
        return evaluate(node, self.value)

    def release(self) -> None:
        """Forget large weights that are retained in another layout."""
        for name in self.released:
            if name in self.weights and self.weights[name].numel() >= LARGE:
                del self.weights[name]

    def bytes(self) -> int:
        """Memory of all values, each storage once."""
        tensors = [*self.weights.values(), *self.values.values()]
        sizes = {}
        for tensor in tensors:
            if isinstance(tensor, Tensor):
                if tensor.is_mkldnn:
                    sizes[id(tensor)] = pointwise.packed_bytes(tensor)
                else:
                    storage = tensor.untyped_storage()
                    sizes[storage.data_ptr()] = storage.nbytes()
        return sum(sizes.values())


def rewrite_graph(graph_module: fx.GraphModule) -> dict[str, int]:
    """Fold and fuse; what was done, counted."""
    graph = graph_module.graph
    rewrite.mark_constants(graph)
    counts = {"batch norms folded": rewrite.fold_batch_norms(graph)}
    rewrite.mark_constants(graph)
    counts["scales folded"] = rewrite.fold_scales(graph)
    counts["views dropped"] = rewrite.drop_views(graph)
    return counts


def choose_ways(graph: fx.Graph, constants: Constants, choices: Choices) -> dict[str, int]:
    """Replace every layer by its fastest way; how often each layout was chosen."""
    counts: dict[str, int] = {}
    roots: set[str] = set()
    for node in list(graph.nodes):
        if not rewrite.is_layer(node):
            continue
        x, weight, bias, rest = _arguments(graph, node)
        value = constants.value(bias) if isinstance(bias, fx.Node) else None
        activation, after = _activation(node)
        key, fake = weight.meta["key"], x.meta["val"]
        known = constants.layouts.get(key)
        if known is None:
            matrix = constants.value(weight)
            ways = (convolution_ways if rest else product_ways)(fake, matrix, *rest)
            way = choices.best(ways, fake, matrix, value, activation, rest)
            constants.layouts[key] = way
        else:
            way = known
        laid_out_key = f"{way.layout}({key})"
        if laid_out_key not in constants.values:
            matrix = constants.value(weight)
            constants.values[laid_out_key] = LAYOUTS[way.layout](matrix, tuple(fake.shape), *rest)
        if not rest or rest[-1] == 1:  # depthwise kernels are small, and cropped for small maps
            roots |= _roots(weight)
        counts[way.layout] = counts.get(way.layout, 0) + 1
        with graph.inserting_before(node):
            holder = graph.placeholder("weight")
            holder.meta["key"] = laid_out_key
            new = graph.call_function(way.run, (x, holder, bias, activation, *rest))
        new.meta |= {"val": node.meta["val"], "fresh": True}
        node.replace_all_uses_with(new)
        graph.erase_node(node)
        if after is not None:
            after.replace_all_uses_with(after.args[0])
            graph.erase_node(after)
            counts["activations fused"] = counts.get("activations fused", 0) + 1
    rewrite.remove_dead(graph)
    constants.released |= roots
    return counts


def _arguments(graph: fx.Graph, node: fx.Node):
    """Input, weight (C_out, ...), bias and the sizes of a layer."""
    if node.target is aten.convolution.default:
        x, weight, bias, stride, padding, dilation, _, _, groups = node.args
        return x, weight, bias, (list(stride), list(padding), list(dilation), groups)
    bias, x, weight = node.args if node.target is aten.addmm.default else (None, *node.args)
    if weight.target in (aten.t.default, rewrite.transposed):
        return x, weight.args[0], bias, ()
    return x, rewrite.constant(graph, node, rewrite.transposed, weight), bias, ()


def _activation(node: fx.Node) -> tuple[str, fx.Node | None]:
    """The activation that alone follows a layer, perhaps behind a view, and its node."""
    while len(node.users) == 1:
        (user,) = node.users
        if user.target in rewrite.ACTIVATIONS:
            exact = user.kwargs.get("approximate", "none") == "none" and len(user.args) == 1
            return (rewrite.ACTIVATIONS[user.target], user) if exact else ("none", None)
        if user.target not in rewrite.VIEWS[:3]:
            break
        node = user
    return "none", None


def _roots(node: fx.Node) -> set[str]:
    """Names of the weights that a constant is computed from."""
    if node.op == "placeholder":
        return {node.meta["key"]}
    return set().union(*(_roots(n) for n in node.all_input_nodes), set())


def finish(graph_module: fx.GraphModule, constants: Constants) -> fx.GraphModule:
    """The graph as a module of one argument, its constants as buffers."""
    graph = graph_module.graph
    rewrite.add_in_place(graph)
    buffers: dict[str, fx.Node] = {}
    for node in list(graph.nodes):
        if "key" not in node.meta:
            continue
        if all("key" in user.meta for user in node.users):
            continue
        key = node.meta["key"]
        value = constants.value(node)
        constants.values[key] = value
        if not isinstance(value, Tensor):
            node.replace_all_uses_with(value)
            continue
        name = buffers.setdefault(key, f"c{len(buffers)}")
        graph_module.register_buffer(name, value)
        with graph.inserting_before(node):
            getter = graph.get_attr(name)
        for user in list(node.users):
            if "key" not in user.meta:
                user.replace_input_with(node, getter)
    # Constants may stand behind their users, since folding refers to later ones.
    while dead := [n for n in graph.nodes if "key" in n.meta and not n.users]:
        for node in dead:
            graph.erase_node(node)
    result = fx.GraphModule(graph_module, graph).eval()
    result.graph.lint()
    return result


def as_torchscript(module: fx.GraphModule, example: Tensor):
    """The module as a TorchScript program, which runs without Python between operators."""
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")
        return torch.jit.trace(module, (example,), check_trace=False)
