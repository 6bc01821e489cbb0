"""What dynamic sparsity leaves: weights of each layer, and multiply-adds beside the dense ones.

The multiply-adds are those that a computation which skips zeros would do. No library of today does
so for scattered zeros: on the clock a sparse network is as fast as the dense one of its width.

Moves keep the count of every layer. So all but the multiply-adds of peripheral convolutions, whose
weights stand for different numbers of taps, stays as it is for a whole run.
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

from seewide.analysis._modes import OnMeta
from seewide.errors import write_atomically
from seewide.layers import PeripheralConv2d
from seewide.ops.peripheral import expand_weight
from seewide.train.build import build_model
from seewide.train.checkpoint import RunConfig, load_last
from seewide.train.console import make_table
from seewide.train.sparsity import DynamicSparsity

DENSITY = "density.json"


@dataclass(frozen=True)
class LayerDensity:
    """One masked weight: how many of its numbers are kept, and its layer's multiply-adds."""

    name: str
    shape: tuple[int, ...]
    kept: int
    weights: int
    macs: int
    dense_macs: int

    @property
    def density(self) -> float:
        return self.kept / self.weights


@dataclass(frozen=True)
class DensityReport:
    """All masked weights; and of the network, parameters and multiply-adds for one `image`."""

    image: tuple[int, ...]
    layers: tuple[LayerDensity, ...]
    dense_parameters: int
    dense_macs: int

    @property
    def kept(self) -> int:
        return sum(layer.kept for layer in self.layers)

    @property
    def weights(self) -> int:
        return sum(layer.weights for layer in self.layers)

    @property
    def parameters(self) -> int:
        return self.dense_parameters - self.weights + self.kept

    @property
    def macs(self) -> int:
        return self.dense_macs - sum(layer.dense_macs - layer.macs for layer in self.layers)

    def __str__(self) -> str:
        return (
            f"{1 - self.kept / self.weights:.1%} of {self.weights:,} weights are zero; "
            f"{self.parameters / 1e6:.2f} of {self.dense_parameters / 1e6:.2f} M parameters, "
            f"{self.macs / 1e9:.3f} of {self.dense_macs / 1e9:.3f} G multiply-adds"
        )

    def table(self) -> Table:
        """Layer by layer, and the sum."""
        columns = "layer", "shape", "kept", "of", "density", "M multiply-adds", "dense"
        table = make_table(str(self), *columns, left=["layer", "shape"])
        for layer in self.layers:
            table.add_row(
                layer.name.removesuffix(".weight"), " x ".join(map(str, layer.shape)),
                f"{layer.kept:,}", f"{layer.weights:,}", f"{layer.density:.1%}",
                f"{layer.macs / 1e6:.1f}", f"{layer.dense_macs / 1e6:.1f}",
            )  # fmt: skip
        return table

    def save(self, path: str | os.PathLike) -> Path:
        """As JSON, atomically: the sums, then every layer."""
        sums = ("image", "kept", "weights", "parameters", "dense_parameters", "macs", "dense_macs")
        content = {name: getattr(self, name) for name in sums}
        content["layers"] = [asdict(layer) | {"density": layer.density} for layer in self.layers]
        text = json.dumps(content, indent=2) + "\n"
        return write_atomically(path, lambda scratch: scratch.write_text(text, encoding="utf-8"))


def report_density(
    sparsity: DynamicSparsity, shape: Sequence[int] = (1, 3, 224, 224)
) -> DensityReport:
    """Count the places in the masks and what they cost in one forward pass of a batch of `shape`.

    A shared weight of a peripheral convolution counts for every tap of its cell. What a layer adds
    beside its own product (a positional embedding) counts whole, and so does a weight that is
    multiplied elsewhere than in its own layer.
    """
    model = sparsity.model
    meta = OnMeta(model)
    # Shapes are all that is wanted here, so a compiled model is not compiled again.
    with torch.compiler.set_stance("force_eager"), FlopCounterMode(display=False) as counter:
        meta.call(meta.input(shape))
    counts = counter.get_flop_counts()
    layers = []
    for name, mask in sparsity.masks.items():
        owner = name.rpartition(".")[0]
        by_operator = counts.get(f"OnMeta.model.{owner}".rstrip("."), {})
        product = by_operator.get(torch.ops.aten.convolution) or sum(by_operator.values())
        macs = product // 2
        share = _share(model.get_submodule(owner), mask)
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
    """Of a run, by the masks in its last checkpoint; None for a dense one, or before its first.

    Raises:
        InputError: no run, or a damaged one.
    """
    config = RunConfig.load(folder)
    state = load_last(folder) if config.recipe.sparsity else None
    if state is None:
        return None
    recipe = config.recipe
    side, classes = recipe.image_size, len(config.class_names)
    model = build_model(config.model, classes, side, stem_stride=recipe.stem_stride)
    sparsity = DynamicSparsity.of(model, recipe, total_updates=1, seed=config.seed)
    sparsity.load_state_dict(state["sparsity"])
    return report_density(sparsity, (1, 3, side, side))


def _share(layer: nn.Module, mask: Tensor) -> float:
    """The share of the taps of the kernel that `mask` leaves."""
    kernel = mask.cpu().double()  # Apple's GPUs have no float64
    if isinstance(layer, PeripheralConv2d):
        kernel = expand_weight(kernel, layer.grid)
    return float(kernel.mean())
