"""Operators against their baselines: `python -m benchmarks ops [OPERATOR...]`.

Each case is one operator on one shape; every form of it computes the same, is checked to, and is
then timed in turns with the others (README.md). One line per form.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from rich.console import Console
from torch import Tensor

from benchmarks.cases import OPERATORS, Case, Form
from benchmarks.conditions import Settings, describe, write_csv
from benchmarks.figures import draw_kernels
from benchmarks.timing import Rounds, matrix_peak, peak_bytes, seconds, take_turns
from seewide.console import make_table, track
from seewide.errors import unknown
from seewide.numerics import TOLERANCE, deviation

FORWARD, BOTH = "forward", "forward + backward"
ROUNDING = {FORWARD: 3, BOTH: 20}  # times TOLERANCE: gradients of weights sum over the whole map
PATIENCE = 15.0  # seconds a call may take by its time at the last smaller kernel
COLUMNS = (
    *("operator", "where", "shape", "kernel", "pass", "form", "median ms", "quartile 1"),
    *("quartile 3", "rounds", "times torch", "GMACs", "GFLOP/s", "% of peak", "MiB", "note"),
)


class WrongResult(AssertionError):
    """A form computes something else; no speed is printed."""


@dataclass(frozen=True)
class Measured:
    """A case, timed: `rounds` by form, and what is said beside the figures."""

    case: Case
    passes: str
    rounds: Rounds
    memory: dict[str, int]
    notes: dict[str, str]

    @property
    def base(self) -> str:
        """The stock formulation, first of the case's forms that ran."""
        return next(iter(self.rounds.rounds))

    @property
    def macs(self) -> float:
        return self.case.macs * (3 if self.passes == BOTH else 1)

    def rows(self, peak: float) -> Iterator[list[object]]:
        """A line of COLUMNS per form."""
        for name, times in self.rounds.rounds.items():
            low, high = self.rounds.spread(name)
            speed = 2 * self.macs / self.rounds.median(name)
            yield [
                self.case.operator, self.case.where, "x".join(map(str, self.case.shape)),
                self.case.kernel, self.passes, name, f"{1e3 * self.rounds.median(name):.3f}",
                f"{1e3 * low:.3f}", f"{1e3 * high:.3f}", len(times),
                f"{self.rounds.ratio(name, self.base):.2f}", f"{self.macs / 1e9:.4g}",
                f"{speed / 1e9:.1f}", f"{100 * speed / peak:.1f}",
                f"{self.memory[name] / 2**20:.1f}", self.notes.get(name, ""),
            ]  # fmt: skip


def bind(case: Case, form: Form, tensors: tuple[Tensor, ...], passes: str) -> Callable:
    """A callable that returns the outputs to compare: the result, or it and all gradients."""
    if form.channels_last:
        maps = (t.contiguous(memory_format=torch.channels_last) for t in tensors[: case.maps])
        tensors = (*maps, *tensors[case.maps :])
    if passes == FORWARD:

        def forward() -> tuple[Tensor, ...]:
            with torch.no_grad():
                return (form.call(*tensors),)

        return forward
    leaves = tuple(t.detach().requires_grad_() for t in tensors)
    generator = torch.Generator().manual_seed(1)
    dy = torch.randn(case.shape, generator=generator).to(tensors[0])
    if form.channels_last:
        dy = dy.contiguous(memory_format=torch.channels_last)

    def forward_backward() -> tuple[Tensor, ...]:
        y = form.call(*leaves)
        return (y.detach(), *torch.autograd.grad(y, leaves, dy))

    return forward_backward


def measure(
    case: Case,
    passes: str,
    settings: Settings,
    only: Callable[[Form], bool] = lambda form: True,
    known: dict[tuple, float] | None = None,
) -> Measured:
    """Check every form of `case` against the first, then time them in turns.

    Args:
        only: which forms take part.
        known: seconds per weight of each form on this shape so far; a form that would take
            longer than PATIENCE by them sits out, which its note says. Is brought up to date.

    Raises:
        WrongResult: a form's result or gradient deviates.
    """
    known = {} if known is None else known
    tensors = case.draw(settings.device, settings.dtype)
    verdict = case.verdicts(tensors)
    calls, want, memory, notes = {}, None, {}, {}
    for form in filter(only, case.forms):
        key = (case.operator, case.shape, passes, form.name)
        expected = known.get(key, 0.0) * case.weights
        if expected > PATIENCE:
            continue
        call = bind(case, form, tensors, passes)
        got: list[tuple[Tensor, ...]] = []
        spent = seconds(lambda call=call, got=got: got.append(call()))
        if want is None:
            want = got[0]
        _check(case, form, got[0], want, ROUNDING[passes] * TOLERANCE[settings.dtype])
        got.clear()
        known[key] = spent / case.weights
        calls[form.name] = call
        memory[form.name] = peak_bytes(call, settings.device) if spent < 2 else 0
        notes[form.name] = verdict if form.ours else ""
    budget = settings.seconds
    return Measured(case, passes, take_turns(calls, settings.rounds, budget), memory, notes)


def _check(
    case: Case, form: Form, got: tuple[Tensor, ...], want: tuple[Tensor, ...], limit: float
) -> None:
    for index, (g, w) in enumerate(zip(got, want, strict=True)):
        found = deviation(g, w)
        if found > limit:
            what = f"gradient {index}" if index else "result"
            raise WrongResult(
                f"{form.name}, {case.operator} of {case.shape}, kernel {case.kernel}: the {what} "
                f"deviates by {found:.1e}, more than {limit:.1e}; no speed is printed"
            )


def chosen(names: Iterable[str], quick: bool) -> list[Case]:
    """The cases of the operators called `names`, or of all."""
    for name in names:
        if name not in OPERATORS:
            raise unknown("operator", name, OPERATORS)
    return [case for name in names or OPERATORS for case in OPERATORS[name](quick)]


def run(names: list[str], settings: Settings, console: Console) -> None:
    """Measure, print, write a file per operator and draw the pictures."""
    for name in names or OPERATORS:
        _run(name, chosen([name], settings.quick), settings, console)
    describe(settings, console)


def _run(name: str, cases: list[Case], settings: Settings, console: Console) -> None:
    peak = matrix_peak(settings.device, settings.dtype)
    known: dict[tuple, float] = {}
    work = [(case, passes) for passes in (FORWARD, BOTH) for case in cases]
    measured = [
        measure(case, passes, settings, known=known)
        for case, passes in track(work, f"measuring {name}", console)
    ]
    title = f"{name}: matrix products reach {peak / 1e9:.0f} GFLOP/s here"
    console.print(table(title, measured, peak))
    if settings.quick:
        return
    rows = [row for each in measured for row in each.rows(peak)]
    path = write_csv(name, COLUMNS, rows, settings)
    picture = draw_kernels(path)
    written: list[Path] = [path] if picture is None else [path, picture]
    console.print(f"written: {', '.join(map(str, written))}", soft_wrap=True, markup=False)


def table(title: str, measured: list[Measured], peak: float):
    """A line per form; the case is named on its first, the backends' reasons are on our lines."""
    words = ("where", "shape", "kernel", "pass", "form", "note")
    shown = [column for column in COLUMNS if column not in ("operator", "GMACs", "rounds")]
    rich = make_table(title, *shown, left=words)
    for each in measured:
        for index, row in enumerate(each.rows(peak)):
            cells = dict(zip(COLUMNS, map(str, row), strict=True))
            reasons = (part for part in cells["note"].split("; ") if ": could run" not in part)
            cells["note"] = "; ".join(reasons)
            if index:
                cells.update({"where": "", "shape": "", "kernel": "", "pass": ""})
            rich.add_row(*(cells[column] for column in shown))
    return rich
