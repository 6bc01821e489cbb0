"""The comparison of two results: largest and root mean square error, tensor by tensor.

Every check in this package that asks whether two ways to compute something agree (a kernel and its
definition, a fused model and the model that was trained, an exported file and the model) asks it
here. Each tensor is compared at its own scale, so that an error in a small gradient is not hidden
behind a large one:

    max = max |got - want| / max |want|        rms = rms(got - want) / rms(want)

`TOLERANCE` says what rounding explains for one operator. A caller that compares something longer
(a network, a gradient that sums over an image) passes a `factor`, with its reason.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

# Largest error of one operator, relative to the reference: both the maximum and the RMS.
TOLERANCE = {
    torch.float64: 1e-11,
    torch.float32: 1e-5,
    torch.float16: 4e-3,
    torch.bfloat16: 2e-2,
}

# A network rounds at each layer: about 100 layers in float32 and float64, fewer significant
# digits to lose in the half precisions.
NETWORK = {
    torch.float64: 1e-9,
    torch.float32: 1e-3,
    torch.float16: 5e-2,
    torch.bfloat16: 2e-1,
}


@dataclass(frozen=True)
class Difference:
    """How far one tensor is from its reference.

    Attributes:
        name: where the tensor stands in the output, such as `["boxes"]` or `[1]`; "" for the
            output itself.
        max_abs: largest |got - want|.
        max_rel: the same over the largest |want| (over 1 if that is 0). Infinite for a NaN, for
            different shapes and for integers or booleans that differ.
        rms_rel: root mean square of the difference over that of `want`.
        reason: why no difference could be computed; else "".
    """

    name: str
    max_abs: float
    max_rel: float
    rms_rel: float
    reason: str = ""

    @property
    def rel(self) -> float:
        """The larger one of both relative errors."""
        return max(self.max_rel, self.rms_rel)

    def __str__(self) -> str:
        where = f"{self.name}: " if self.name else ""
        if self.reason:
            return f"{where}{self.reason}"
        return f"{where}max {self.max_rel:.1e}, rms {self.rms_rel:.1e}"


def tensors(output: Any, name: str = "") -> Iterator[tuple[str, Tensor]]:
    """All tensors in a nested output, with their places, in a fixed order.

    Takes tensors, numpy arrays, numbers, mappings (also transformers' `ModelOutput`), lists,
    tuples, named tuples, dataclasses and None; other objects are skipped.
    """
    if isinstance(output, Tensor):
        yield name, output
    elif isinstance(output, (np.ndarray, np.generic, bool, int, float, complex)):
        yield name, torch.as_tensor(output)
    elif isinstance(output, Mapping):
        for key, value in output.items():
            yield from tensors(
                value, f"{name}[{key!r}]" if isinstance(key, str) else f"{name}[{key}]"
            )
    elif isinstance(output, (list, tuple)):
        for index, value in enumerate(output):
            yield from tensors(value, f"{name}[{index}]")
    elif dataclasses.is_dataclass(output) and not isinstance(output, type):
        for field in dataclasses.fields(output):
            yield from tensors(getattr(output, field.name), f"{name}.{field.name}")


def difference(got: Tensor, want: Tensor, name: str = "") -> Difference:
    """Compare two tensors of any dtype and device; computed in float64.

    Equal infinities are equal. A NaN is infinitely wrong, also where both have it: no check can
    be passed by a network that computes nothing.
    """
    if got.shape != want.shape:
        reason = f"shape {tuple(got.shape)} instead of {tuple(want.shape)}"
        return Difference(name, math.inf, math.inf, math.inf, reason)
    if want.numel() == 0:
        return Difference(name, 0.0, 0.0, 0.0)
    wide = torch.complex128 if got.is_complex() or want.is_complex() else torch.float64
    g, w = got.detach().cpu().to(wide), want.detach().cpu().to(wide)
    if g.isnan().any():
        reason = "NaN" if not w.isnan().any() else "NaN, in the reference as well"
        return Difference(name, math.inf, math.inf, math.inf, reason)
    same = g == w
    error = torch.where(same, 0, g - w).abs()
    max_abs = error.max().item()
    if math.isnan(max_abs):
        return Difference(name, math.inf, math.inf, math.inf, "NaN in the reference alone")
    if not (want.is_floating_point() or want.is_complex()):
        rel = 0.0 if max_abs == 0 else math.inf
        count = (~same).sum().item()
        reason = f"{count} of {want.numel()} {want.dtype} entries differ" if count else ""
        return Difference(name, max_abs, rel, rel, reason)
    size = torch.where(w.isinf(), 0, w).abs()
    max_rel = _over(max_abs, size.max().item())
    # Scaled by the largest value first: the square of a gradient of 1e-200 is zero.
    rms_rel = _over(_rms(error), _rms(size))
    return Difference(name, max_abs, max_rel, rms_rel)


def compare(got: Any, want: Any) -> list[Difference]:
    """Compare two outputs of the same structure, tensor by tensor.

    Different structures are one infinite difference whose `reason` names the first place.
    """
    ours, theirs = list(tensors(got)), list(tensors(want))
    if [name for name, _ in ours] != [name for name, _ in theirs]:
        # A list and a tuple of the same tensors agree; a missing tensor does not.
        a, b = ([n for n, _ in side] for side in (ours, theirs))
        odd = next((n for n in (*a, *b) if (n in a) != (n in b)), "") or "the output itself"
        side = "missing" if odd in b else "unexpected"
        reason = f"{len(a)} tensors instead of {len(b)} ({odd} is {side})"
        return [Difference("", math.inf, math.inf, math.inf, reason)]
    return [difference(g, w, n) for (n, g), (_, w) in zip(ours, theirs, strict=True)]


def worst(differences: list[Difference]) -> Difference:
    """The difference with the largest relative error; a perfect one if there are none."""
    return max(differences, key=lambda d: d.rel, default=Difference("", 0.0, 0.0, 0.0))


def deviation(got: Any, want: Any) -> float:
    """Largest relative error (`max_rel`) over all tensors of two outputs."""
    return max((d.max_rel for d in compare(got, want)), default=0.0)


def tolerance(dtype: torch.dtype, table: Mapping[torch.dtype, float] = TOLERANCE) -> float:
    """What the table allows for a dtype: complex as its parts, 0 for integers and booleans."""
    if dtype.is_complex:
        dtype = dtype.to_real()
    return table.get(dtype, 0.0)


def assert_close(got: Any, want: Any, what: str = "output", factor: float = 1.0) -> None:
    """Assert that every tensor of `got` is within `factor` times the rounding of its dtype.

    Raises:
        AssertionError: names the tensor, its error and the limit.
    """
    found = compare(got, want)
    dtypes = [tensor.dtype for _, tensor in tensors(got)] if len(found) > 1 else []
    first = next((tensor.dtype for _, tensor in tensors(got)), torch.float64)
    for one, dtype in zip(found, dtypes or [first], strict=False):
        limit = factor * tolerance(dtype)
        assert one.rel <= limit, f"{what} deviates by {one}, more than {limit:.1e} ({dtype})"


def _over(error: float, scale: float) -> float:
    return error / scale if scale > 0 else error


def _rms(values: Tensor) -> float:
    largest = values.max().item()
    if largest == 0 or math.isinf(largest):
        return largest
    return (values / largest).square().mean().sqrt().item() * largest
