"""Folding and fusing in a captured graph (`capture.py`).

Each function changes the graph in place and returns how often it did so. New constants are nodes
with a key, computed by functions of this file.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor, fx

from .capture import aten, is_constant, is_pure, key_of

VIEWS = (aten.view.default, aten._unsafe_view.default, aten.permute.default, aten.clone.default)
BATCH_NORMS = tuple(
    getattr(aten, name).default
    for name in ("native_batch_norm", "_native_batch_norm_legit_no_training", "cudnn_batch_norm")
    if hasattr(aten, name)
)
ACTIVATIONS = {
    aten.relu.default: "relu",
    aten.relu_.default: "relu",
    aten.gelu.default: "gelu",
}


def batch_norm_scale(weight: Tensor | None, variance: Tensor, eps: float) -> Tensor:
    """Factor (C,) of a batch norm in evaluation."""
    scale = (variance.double() + eps).rsqrt()
    return (scale if weight is None else scale * weight).to(variance.dtype)


def batch_norm_shift(bias: Tensor | None, mean: Tensor, scale: Tensor) -> Tensor:
    """Summand (C,) of a batch norm in evaluation."""
    shift = -mean * scale
    return shift if bias is None else shift + bias


def scaled_rows(weight: Tensor, scale: Tensor) -> Tensor:
    """Weight (C_out, ...) with each output scaled."""
    return weight * scale.reshape(-1, *[1] * (weight.ndim - 1))


def affine(bias: Tensor | None, scale: Tensor | None, shift: Tensor | None) -> Tensor:
    """bias * scale + shift, in which each may be missing, as (C,)."""
    if bias is None:
        return shift.reshape(-1)
    y = bias if scale is None else bias * scale.reshape(-1)
    return y if shift is None else y + shift.reshape(-1)


def per_channel(vector: Tensor, ndim: int) -> Tensor:
    """(C,) as (C, 1, 1) for maps of `ndim` axes."""
    return vector.reshape(-1, *[1] * (ndim - 2))


def transposed(weight: Tensor) -> Tensor:
    """The other way around."""
    return weight.t()


OURS = (batch_norm_scale, batch_norm_shift, scaled_rows, affine, per_channel, transposed)


def mark_constants(graph: fx.Graph) -> None:
    """Give a key to every node that does not depend on the input."""
    for node in graph.nodes:
        pure = is_pure(node) or node.target in OURS
        inputs = node.all_input_nodes
        if pure and "key" not in node.meta and inputs and all(map(is_constant, inputs)):
            node.meta["key"] = key_of(node)


def constant(graph: fx.Graph, before: fx.Node, function, *args) -> fx.Node:
    """A new constant in front of `before`."""
    with graph.inserting_before(before):
        node = graph.call_function(function, args)
    node.meta["key"] = key_of(node)
    return node


def remove_dead(graph: fx.Graph) -> None:
    """Remove what nobody uses and changes nothing."""
    for node in reversed(list(graph.nodes)):
        if node.op == "placeholder" or node.op == "output" or node.users:
            continue
        allocates = str(node.target).startswith("aten.empty")
        if is_pure(node) or node.target in OURS or allocates:
            graph.erase_node(node)


def is_layer(node: object) -> bool:
    """Whether a node is a convolution or a product with a constant weight."""
    if not isinstance(node, fx.Node):
        return False
    if node.target is aten.convolution.default:
        return is_constant(node.args[1]) and is_constant(node.args[2]) and not node.args[6]
    if node.target is aten.addmm.default:
        plain = not node.kwargs and len(node.args) == 3
        return plain and is_constant(node.args[0]) and is_constant(node.args[2])
    return node.target is aten.mm.default and is_constant(node.args[1])


def out_channels(node: fx.Node) -> int:
    """C_out of a layer."""
    return node.meta["val"].shape[1]


def fold_batch_norms(graph: fx.Graph) -> int:
    """Batch norms in evaluation: into the convolution before, else a product and a sum."""
    count = 0
    for node in list(graph.nodes):
        if node.target not in BATCH_NORMS:
            continue
        if node.target is BATCH_NORMS[0]:
            x, weight, bias, mean, variance, training, _, eps = node.args
            if training:
                continue
        else:
            x, weight, bias, mean, variance, *_, eps = node.args
        if not all(is_constant(a) for a in (weight, bias, mean, variance)):
            continue
        scale = constant(graph, node, batch_norm_scale, weight, variance, eps)
        shift = constant(graph, node, batch_norm_shift, bias, mean, scale)
        outputs = [user for user in node.users if user.target is operator.getitem]
        y = next((user for user in outputs if user.args[1] == 0), None)
        if y is None:
            continue
        if is_layer(x) and len(x.users) == 1:
            fold_into(graph, x, scale, shift)
            new = x
        else:
            ndim = y.meta["val"].ndim
            factor, summand = (
                constant(graph, node, per_channel, vector, ndim) for vector in (scale, shift)
            )
            with graph.inserting_before(node):
                new = graph.call_function(torch.addcmul, (summand, x, factor))
            new.meta["val"] = y.meta["val"]
        y.replace_all_uses_with(new)
        count += 1
    remove_dead(graph)
    return count


def fold_into(
    graph: fx.Graph, layer: fx.Node, scale: fx.Node | None, shift: fx.Node | None
) -> None:
    """Scale and shift (C_out,) the outputs of a layer by changing its constants."""
    if layer.target is aten.convolution.default:
        x, weight, bias, *rest = layer.args
        if scale is not None:
            weight = constant(graph, layer, scaled_rows, weight, scale)
        bias = constant(graph, layer, affine, bias, scale, shift)
        layer.args = (x, weight, bias, *rest)
        return
    bias, x, weight = layer.args if layer.target is aten.addmm.default else (None, *layer.args)
    if scale is not None:
        weight = constant(graph, layer, transposed, weight)
        weight = constant(graph, layer, scaled_rows, weight, scale)
        weight = constant(graph, layer, transposed, weight)
    if bias is None and shift is None:
        layer.args = (x, weight)
        return
    bias = constant(graph, layer, affine, bias, scale, shift)
    layer.target, layer.args = aten.addmm.default, (bias, x, weight)


def fold_scales(graph: fx.Graph) -> int:
    """Products and sums with one number per channel, such as layer scales, into the layer before.

    Between the two there may be views and permutations, which are followed.
    """
    count = 0
    for node in list(graph.nodes):
        if node.target not in (aten.mul.Tensor, aten.add.Tensor) or node.kwargs:
            continue
        y, vector = node.args
        if is_constant(y):
            y, vector = vector, y
        if not isinstance(vector, fx.Node) or not is_constant(vector) or is_constant(y):
            continue
        layer = _layer_behind(y, _axis(vector, node))
        if layer is None:
            continue
        if node.target is aten.mul.Tensor:
            fold_into(graph, layer, constant(graph, layer, torch.flatten, vector), None)
        else:
            fold_into(graph, layer, None, constant(graph, layer, torch.flatten, vector))
        node.replace_all_uses_with(y)
        graph.erase_node(node)
        count += 1
    return count


def _axis(vector: fx.Node, node: fx.Node) -> int | None:
    """The axis of `node` along which `vector` differs; None if there is not exactly one."""
    shape, out = vector.meta["val"].shape, node.meta["val"].shape
    axes = [i for i, n in enumerate(shape) if n > 1]
    return len(out) - len(shape) + axes[0] if len(axes) == 1 else None


def _layer_behind(node: object, axis: int | None) -> fx.Node | None:
    """The layer whose output channels are this axis of `node`, used for nothing else."""
    while axis is not None and isinstance(node, fx.Node) and len(node.users) == 1:
        if is_layer(node):
            return node if axis == 1 else None
        if node.target not in VIEWS:
            break
        before, after = node.args[0].meta["val"].shape, node.meta["val"].shape
        if node.target is aten.permute.default:
            axis = node.args[1][axis] % len(before)
        elif node.target in VIEWS[:2]:
            if axis != len(after) - 1 or after[-1] != before[-1]:
                break  # the last axis of both is followed, no other
            axis = len(before) - 1
        node = node.args[0]
    return None


def drop_views(graph: fx.Graph) -> int:
    """Views of the same shape, and permutations that undo each other."""
    count = 0
    for node in list(graph.nodes):
        if node.target in VIEWS[:2] and isinstance(node.args[0], fx.Node):
            same = node.args[0].meta["val"].shape == node.meta["val"].shape
            before = node.args[0] if same else None
        elif node.target is aten.permute.default and node.args[0].target is aten.permute.default:
            first, second = node.args[0].args[1], node.args[1]
            undone = [first[i] for i in second] == list(range(len(first)))
            before = node.args[0].args[0] if undone else None
        else:
            continue
        if before is not None and "key" not in node.meta:
            node.replace_all_uses_with(before)
            count += 1
    remove_dead(graph)
    return count


def add_in_place(graph: fx.Graph) -> int:
    """Sums into the memory of an operand that a layer computed for nothing else."""
    count = 0
    for node in graph.nodes:
        if node.target is not aten.add.Tensor or node.kwargs:
            continue
        a, b = node.args
        for one, other in ((a, b), (b, a)):
            shaped = isinstance(one, fx.Node) and isinstance(other, fx.Node) and one is not other
            if not shaped or "val" not in one.meta or "val" not in other.meta:
                continue
            x, out = one.meta["val"], node.meta["val"]
            if x.shape == out.shape and x.dtype == out.dtype and _is_fresh(one):
                node.target, node.args = aten.add_.Tensor, (one, other)
                count += 1
                break
    return count


def _is_fresh(node: fx.Node) -> bool:
    """Whether the memory of a node holds the result of a layer that nobody else reads."""
    while len(node.users) == 1:
        if node.meta.get("fresh"):
            return True
        if node.target not in VIEWS[:3]:
            return False
        node = node.args[0]
    return False
