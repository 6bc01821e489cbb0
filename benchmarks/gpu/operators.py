"""Operators on a GPU: every form checked, then timed, beside what memory and cores allow."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gpu.cases import (
    BY_INPUT,
    BY_WEIGHT,
    COMPILED,
    FORWARD,
    OURS,
    PUBLISHED,
    Case,
    Form,
)
from benchmarks.gpu.clock import Budget, Limits, milliseconds
from benchmarks.ops import WrongResult
from seewide.numerics import TOLERANCE, deviation

SETS = 2  # of inputs
COLUMNS = (
    *("section", "where", "shape", "kernel", "dtype", "pass", "form", "ms", "times best rival"),
    *("% of memory speed", "% of matrix speed"),
)


@dataclass(frozen=True)
class Row:
    """A line of the result."""

    case: Case
    what: str
    form: str
    ms: float
    rival_ms: float | None  # the fastest form that is not ours
    memory: float  # share of a copy's speed, if only the inputs and results were moved, once
    matrix: float  # share of torch's matrix product's speed, by useful operations

    def cells(self) -> list[object]:
        dtype = str(self.case.dtype).removeprefix("torch.")
        rival = "" if self.rival_ms is None else f"{self.rival_ms / self.ms:.2f}"
        return [
            self.case.section, self.case.where, "x".join(map(str, self.case.shape)),
            self.case.kernel, dtype, self.what, self.form, f"{self.ms:.4f}", rival,
            f"{100 * self.memory:.1f}", f"{100 * self.matrix:.1f}",
        ]  # fmt: skip


def bind(form: Form, tensors: tuple[Tensor, ...], what: str) -> Callable[[], tuple[Tensor, ...]]:
    """The pass as a call: of the result, or of the gradients alone, for one drawn slope."""
    if form.channels_last:
        last = torch.channels_last
        tensors = tuple(t.contiguous(memory_format=last) for t in tensors)
    if what == FORWARD:

        def forward() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (form.call(*tensors),)

        return forward
    leaves = [t.detach() for t in tensors]
    wanted = {BY_INPUT: leaves[:1], BY_WEIGHT: leaves[1:2]}.get(what, leaves)
    for leaf in wanted:
        leaf.requires_grad_()
    y = form.call(*leaves)
    generator = torch.Generator(y.device).manual_seed(1)
    dy = torch.randn(y.shape, generator=generator, device=y.device).to(y.dtype)
    dy = dy.contiguous(memory_format=torch.channels_last) if form.channels_last else dy
    return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def measure(cases: Iterable[Case], limits: Limits, device: str, budget: Budget) -> Iterator[Row]:
    """Rows of all cases that the time suffices for, ours first.

    A case whose result deviates from torch's own, or that fails, has none, and is named.
    """
    for case in cases:
        for what in case.passes:
            title = f"{case.title}, {what}"
            if budget.allows(title):
                with budget.survives(title):
                    yield from list(_measure(case, what, limits, device))


def _measure(case: Case, what: str, limits: Limits, device: str) -> Iterator[Row]:
    sets = [case.draw(device) for _ in range(SETS)]
    forms, times, wanted = case.forms_of(what), {}, None
    # Gradients add up whole maps; halves that a rival adds up in halves are no yardstick.
    allowed = (20 if case.dtype == torch.float32 else 5) * TOLERANCE[case.dtype]
    for name in sorted(forms, key=is_ours):  # torch's own first, ours are compared with it
        calls = [bind(forms[name], tensors, what) for tensors in sets]
        results = calls[0]()
        if wanted is None:
            wanted = results
        elif is_ours(name):
            for got, want in zip(results, wanted, strict=True):
                found = deviation(got, want)
                if found > allowed:
                    raise WrongResult(f"{name} deviates by {found:.1e}, more than {allowed:.1e}")
        times[name] = milliseconds(calls, device)
        moved = sum(t.numel() * t.element_size() for t in (*sets[0], *results))
    rivals = [ms for name, ms in times.items() if not is_ours(name)]
    operations = 2 * case.macs * (len(results) if what != FORWARD else 1)
    for name in forms:
        seconds = times[name] / 1e3
        yield Row(
            case, what, name, times[name], min(rivals) if rivals else None,
            moved / seconds / limits.bytes,
            operations / seconds / limits.operations[case.dtype],
        )  # fmt: skip


def is_ours(form: str) -> bool:
    """Whether the package computes it."""
    return form.startswith(OURS)


def warm(case: Case, device: str) -> None:
    """Call what is compiled once in each pass, ours with every candidate: fills the caches."""
    for what in case.passes:
        for name, form in case.forms_of(what).items():
            if is_ours(name) or name in (COMPILED, PUBLISHED):
                bind(form, case.draw(device), what)()
