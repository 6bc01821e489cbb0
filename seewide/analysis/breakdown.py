"""Parameters and multiply-adds of a model by stage and by kind of layer.

The operators of a forward pass are recorded on the meta device, with the module in which they run,
so this works for any `nn.Module`. The kinds follow Figure 5 of PeLK (arXiv 2403.07589) and are
decided by shapes:

* large kernel: a depthwise convolution with stride 1 and a kernel size of at least 7;
* small kernel: any other convolution with stride 1 and a kernel larger than 1x1;
* down-sampling: a convolution with a larger stride, including the stem;
* FFN: 1x1 convolutions and linear layers on maps;
* attention: products of activations with activations;
* head: everything after the last stage;
* gate: 1x1 convolutions and linear layers on pooled maps, as in squeeze-and-excitation;
* embedding: parameters named `pos_embed`, and products of parameters with parameters, as in PeLK's
  position maps;
* rest: norms, scales and separate biases.

Multiply-adds are those of dense execution. Where weights are shared (PeLK's peripheral kernels) or
zero (sparse training), *distinct* multiply-adds are the dense ones times the number of non-zero
parameters over the number of kernel weights: the cost of an implementation that makes use of
sharing and sparsity.
"""

from __future__ import annotations

import os
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from torch.utils.module_tracker import ModuleTracker

from seewide.analysis._inspection import MetaModel
from seewide.errors import InputError, unknown

KINDS = (
    "FFN", "large kernel", "small kernel", "attention", "down-sampling", "gate", "embedding",
    "head", "rest",
)  # fmt: skip
LARGE = 7
aten = torch.ops.aten


@dataclass
class Share:
    """Cost of one kind of layer in one stage.

    Attributes:
        parameters: number of parameters.
        macs: multiply-adds.
        distinct_macs: see above.
        activations: number of output elements of the counted operators.
    """

    parameters: int = 0
    macs: int = 0
    distinct_macs: float = 0.0
    activations: int = 0

    def __add__(self, other: Share) -> Share:
        return Share(
            self.parameters + other.parameters,
            self.macs + other.macs,
            self.distinct_macs + other.distinct_macs,
            self.activations + other.activations,
        )


@dataclass
class CostBreakdown:
    """Cost by stage and kind of layer.

    Attributes:
        shares: `shares[stage][kind]`, stages in the order of execution.
    """

    shares: dict[str, dict[str, Share]] = field(default_factory=dict)

    @property
    def total(self) -> Share:
        """Sum over all stages and kinds."""
        return sum((share for kinds in self.shares.values() for share in kinds.values()), Share())

    def by_stage(self) -> dict[str, Share]:
        """Sum over the kinds of each stage."""
        return {stage: sum(kinds.values(), Share()) for stage, kinds in self.shares.items()}

    def by_kind(self) -> dict[str, Share]:
        """Sum over the stages of each kind that occurs, in the order of `KINDS`."""
        totals: dict[str, Share] = defaultdict(Share)
        for kinds in self.shares.values():
            for kind, share in kinds.items():
                totals[kind] = totals[kind] + share
        return {kind: totals[kind] for kind in KINDS if kind in totals}

    def rows(self) -> list[tuple[str, str, int, int, int, int]]:
        """(stage, kind, parameters, multiply-adds, distinct multiply-adds, activations)."""
        return [
            (stage, kind, s.parameters, s.macs, round(s.distinct_macs), s.activations)
            for stage, kinds in self.shares.items()
            for kind, s in sorted(kinds.items(), key=lambda item: KINDS.index(item[0]))
        ]


def break_down_cost(model: nn.Module, shape: Sequence[int] = (1, 3, 224, 224)) -> CostBreakdown:
    """Break down the counts of `cost.count_cost` for one input of `shape` in evaluation mode.

    Stages are those in timm's `feature_info`; for other models, the children of `model`.
    """
    meta = MetaModel(model)
    stages = _stage_names(model)
    x = meta.input(shape)
    executed = _Executed(x)
    with executed.tracker, executed:  # the mode is entered again to decompose operators
        meta.call(x)
    shares: dict[str, dict[str, Share]] = defaultdict(lambda: defaultdict(Share))
    last = max((i for i, op in enumerate(executed.ops) if _stage(op.module, stages) in stages),
               default=len(executed.ops))  # fmt: skip
    kinds: dict[str, Counter[str]] = defaultdict(Counter)  # multiply-adds by module and kind
    parameters = dict(model.named_parameters())
    for i, op in enumerate(executed.ops):
        stage = _stage(op.module, stages)
        kind = "head" if i > last and stage not in stages else op.kind
        kinds[op.module][kind] += op.macs
        share = shares[stage][kind]
        share.macs += op.macs
        share.distinct_macs += op.macs * _distinct(op, parameters)
        share.activations += op.outputs
    for name, parameter in parameters.items():
        module, _, own = name.rpartition(".")
        if own == "pos_embed":
            kind = "embedding"
        elif kinds[module]:
            kind = kinds[module].most_common(1)[0][0]
        else:
            kind = "rest"
        shares[_stage(module, stages)][kind].parameters += parameter.numel()
    return CostBreakdown({stage: dict(kinds) for stage, kinds in shares.items()})


def draw_cost_breakdown(
    splits: Mapping[str, CostBreakdown], path: str | os.PathLike, what: str = "macs"
) -> Path:
    """A stacked bar of the kinds for each model, as PeLK's Figure 5.

    Args:
        splits: label -> cost.
        path: of the figure.
        what: attribute of `Share`.

    Raises:
        InputError: no models, or an unknown `what`.
    """
    from seewide.analysis import figures

    unit = {"macs": "multiply-adds (G)", "distinct_macs": "distinct multiply-adds (G)",
            "parameters": "parameters (M)", "activations": "activations (M)"}  # fmt: skip
    if what not in unit:
        raise unknown("share", what, unit)
    if not splits:
        raise InputError("no cost to draw")
    scale = 1e9 if "macs" in what else 1e6
    kinds = [kind for kind in KINDS if any(kind in split.by_kind() for split in splits.values())]
    hues = dict(zip(KINDS, [*figures.PALETTE, *figures.MORE], strict=True))
    rows = range(len(splits))
    with figures.style():
        figure, (axis,) = figures.canvas(1, 1, 8.0, 1.5 + 0.5 * len(splits))
        start = [0.0] * len(splits)
        for kind in kinds:
            parts = [split.by_kind().get(kind, Share()) for split in splits.values()]
            values = [getattr(part, what) / scale for part in parts]
            axis.barh(rows, values, left=start, height=0.62, color=hues[kind], label=kind)
            start = [left + value for left, value in zip(start, values, strict=True)]
        for row, end in zip(rows, start, strict=True):
            axis.annotate(f"{end:.3g}", (end, row), xytext=(5, 0), va="center",
                          textcoords="offset points")  # fmt: skip
        axis.set_yticks(rows, [figures.plain(label) for label in splits])
        axis.invert_yaxis()
        axis.set_xlim(0, max(start) * 1.1 or 1)
        axis.set_xlabel(unit[what])
        axis.spines["left"].set_visible(False)
        axis.tick_params(axis="y", length=0)
        axis.grid(axis="x")
        figure.legend(loc="outside upper center", ncols=min(len(kinds), 5), fontsize=8)
        return figures.save(figure, path)


@dataclass
class _Op:
    """One executed operator.

    Attributes:
        module: name of the module that ran it.
        kind: of KINDS.
        macs: multiply-adds.
        outputs: number of output elements.
        taps: number of elements of its weight.
    """

    module: str
    kind: str
    macs: int
    outputs: int
    taps: int


class _Executed(TorchDispatchMode):
    """Records the operators that have multiply-adds.

    Args:
        x: the input of the model.
    """

    def __init__(self, x: Tensor):
        super().__init__()
        self.ops: list[_Op] = []
        self.from_input = {id(x): x}  # the tensors are kept alive, so that no id is reused
        self.tracker = ModuleTracker()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet not in flop_registry:
            with self:
                y = func.decompose(*args, **kwargs)
            y = func(*args, **kwargs) if y is NotImplemented else y
        else:
            y = func(*args, **kwargs)
            self.ops.append(self._record(packet, args, kwargs, y))
        if self._depends_on_input((args, kwargs)):
            self.from_input.update((id(t), t) for t in tree_leaves(y) if isinstance(t, Tensor))
        return y

    def _depends_on_input(self, tree: object) -> bool:
        return any(id(leaf) in self.from_input for leaf in tree_leaves(tree))

    def _record(self, packet, args: tuple, kwargs: dict, y) -> _Op:
        tensors = [leaf for leaf in tree_leaves(args) if isinstance(leaf, Tensor)]
        weight = args[1] if packet is aten.convolution else tensors[-1]
        innermost = max(self.tracker.parents, key=len)
        return _Op(
            module=innermost.removeprefix("MetaModel").removeprefix(".model").removeprefix("."),
            kind=_kind(packet, args) if self._depends_on_input(args) else "embedding",
            macs=flop_registry[packet](*args, **kwargs, out_val=y) // 2,
            outputs=sum(leaf.numel() for leaf in tree_leaves(y) if isinstance(leaf, Tensor)),
            taps=weight.numel(),
        )


def _kind(packet, args: tuple) -> str:
    if packet is aten.convolution:
        x, weight, _, stride = args[:4]
        sides = weight.shape[2:]
        if max(stride) > 1:
            return "down-sampling"
        if max(sides) > 1:
            depthwise = weight.shape[1] == 1 and weight.shape[0] > 1
            return "large kernel" if depthwise and max(sides) >= LARGE else "small kernel"
        return "gate" if x.shape[2:].numel() == 1 else "FFN"
    if packet in (aten.mm, aten.addmm):
        rows = args[-2].shape[0]
        return "gate" if rows == 1 else "FFN"
    return "attention"


def _distinct(op: _Op, parameters: dict[str, Tensor]) -> float:
    """Non-zero parameters over elements of the weight; 1 for dense weights."""
    weight = parameters.get(f"{op.module}.weight" if op.module else "weight")
    if weight is None or weight.is_meta or op.kind in ("attention", "embedding"):
        return 1.0
    return min(torch.count_nonzero(weight).item() / op.taps, 1.0)


def _stage_names(model: nn.Module) -> list[str]:
    """Names of the stages in timm's `feature_info`; empty for other models."""
    try:
        return [info["module"] for info in model.feature_info]
    except (AttributeError, KeyError, TypeError):
        return []


def _stage(module: str, stages: Sequence[str]) -> str:
    for stage in stages:
        if module == stage or module.startswith(f"{stage}."):
            return stage
    return module.partition(".")[0] or "model"
