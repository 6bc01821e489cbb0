"""The density of a sparse network: non-zero weights and multiply-adds of each layer.

The multiply-adds are those of a computation that skips zeros. No current library does so for
unstructured zeros: in time a sparse network costs as much as the dense one of its width.

The number of non-zero weights of a layer is constant during a run. So is everything else here but
the multiply-adds of peripheral convolutions, whose weights stand for different numbers of taps.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from rich.table import Table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from seewide.analysis._inspection import MetaModel
from seewide.console import make_table
from seewide.errors import write_atomically
from seewide.layers import PeripheralConv2d
from seewide.ops.peripheral import expand_weight
from seewide.train.build import build_backbone
from seewide.train.checkpoint import RunConfig, load_state
from seewide.train.sparsity import DynamicSparsity

DENSITY = "density.json"


@dataclass(frozen=True)
class LayerDensity:
    """One masked weight: its non-zero entries, and the multiply-adds of its layer."""

    name: str
    shape: tuple[int, ...]
    nonzero: int
    weights: int
    macs: int
    dense_macs: int

    @property
    def density(self) -> float:
        return self.nonzero / self.weights


@dataclass(frozen=True)
class DensityReport:
    """All masked weights; parameters and multiply-adds of the network for an input of `image`."""

    image: tuple[int, ...]
    layers: tuple[LayerDensity, ...]
    dense_parameters: int
    dense_macs: int

    @property
    def nonzero(self) -> int:
        return sum(layer.nonzero for layer in self.layers)

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def parameters(self) -> int:
        return self.dense_parameters - self.weights + self.nonzero

    @property
    def macs(self) -> int:
        return self.dense_macs - sum(layer.dense_macs - layer.macs for layer in self.layers)

    def __str__(self) -> str:
        return (
            f"{1 - self.nonzero / self.weights:.1%} of {self.weights:,} weights are zero; "
            f"{self.parameters / 1e6:.2f} of {self.dense_parameters / 1e6:.2f} M parameters, "
            f"{self.macs / 1e9:.3f} of {self.dense_macs / 1e9:.3f} G multiply-adds"
        )

    def table(self) -> Table:
        """One row per layer; the title has the sums."""
        columns = "layer", "shape", "non-zero", "of", "density", "M multiply-adds", "dense"
        table = make_table(str(self), *columns, left=["layer", "shape"])
        for layer in self.layers:
            table.add_row(
                layer.name.removesuffix(".weight"), " x ".join(map(str, layer.shape)),
                f"{layer.nonzero:,}", f"{layer.weights:,}", f"{layer.density:.1%}",
                f"{layer.macs / 1e6:.1f}", f"{layer.dense_macs / 1e6:.1f}",
            )  # fmt: skip
        return table

    def save(self, path: str | os.PathLike) -> Path:
        """Write JSON: the sums, then every layer."""
        sums = (
            "image",
            "nonzero",
            "weights",
            "parameters",
            "dense_parameters",
            "macs",
            "dense_macs",
        )
        content = {name: getattr(self, name) for name in sums}
        content["layers"] = [asdict(layer) | {"density": layer.density} for layer in self.layers]
        text = json.dumps(content, indent=2) + "\n"
        return write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def report_density(
    sparsity: DynamicSparsity, shape: Sequence[int] = (1, 3, 224, 224)
) -> DensityReport:
    """Count the non-zero weights and their cost in one forward pass of a batch of `shape`.

    A shared weight of a peripheral convolution counts for every tap of its cell. Operations of a
    layer other than its own product (a positional embedding) count fully, and so does a weight that
    is multiplied elsewhere than in its own layer.
    """
    model = sparsity.model
    meta = MetaModel(model)
    # Only shapes matter here, so a compiled model is not compiled again.
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        meta.call(meta.input(shape))
    counts = counter.get_flop_counts()
    layers = []
    for name, mask in sparsity.masks.items():
        owner = name.rpartition(".")[0]
        by_operator = counts.get(f"MetaModel.model.{owner}".rstrip("."), {})
        product = by_operator.get(torch.ops.aten.convolution) or sum(by_operator.values())
        macs = product // 2
        share = _density_of_kernel(model.get_submodule(owner), mask)
        layers.append(
            LayerDensity(
                name, tuple(mask.shape), int(mask.sum()), mask.numel(), round(share * macs), macs
            )
        )
    return DensityReport(
        image=tuple(shape),
        layers=tuple(layers),
        dense_parameters=sum(parameter.numel() for parameter in model.parameters()),
        dense_macs=counter.get_total_flops() // 2,
    )


def density_of(folder: Path) -> DensityReport | None:
    """The density of a run, by the masks in its last checkpoint; None for a dense run, or before
    its first checkpoint.

    Raises:
        InputError: no run, or a damaged one.
    """
    config = RunConfig.load(folder)
    recipe, task = config.recipe, config.task
    state = load_state(folder)[0] if recipe.sparsity else None
    if state is None:
        return None
    backbone = build_backbone(
        config.model, task.backbone_options(config.facts),
        image_size=config.preprocess.get("image_size"), **recipe.architecture,
    )  # fmt: skip
    model = task.build(backbone, config.facts)
    sparsity = DynamicSparsity.of(model, recipe, total_steps=1, seed=config.runtime.seed)
    sparsity.load_state_dict(state["sparsity"])
    return report_density(sparsity, tuple(task.example(config.facts, config.preprocess, 1).shape))


def _density_of_kernel(layer: nn.Module, mask: Tensor) -> float:
    """The fraction of the taps of the kernel that are not masked."""
    kernel = mask.cpu().double()  # Apple's GPUs have no float64
    if isinstance(layer, PeripheralConv2d):
        kernel = expand_weight(kernel, layer.grid)
    return float(kernel.mean())
