"""One run on a GPU: the whole of `make bench-gpu`, or a part of it.

Triton compiles a few configurations for each shape. Before anything is timed, processes that only
call fill its cache, in parallel.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import chain
from pathlib import Path
from unittest import mock

import torch
import triton
from rich.console import Console

from benchmarks.conditions import Settings, conditions, write_csv
from benchmarks.gpu import cases, networks, operators
from benchmarks.gpu.aims import judge
from benchmarks.gpu.clock import Budget, Limits
from benchmarks.gpu.page import write_page
from seewide.console import make_table, print_facts
from seewide.errors import unknown

BUDGET = 590.0  # seconds
AIMS = ("aim", "figure", "met")
SECTIONS = {
    "depthwise": cases.depthwise,
    "aggregation": cases.aggregation,
    "dcnv3": cases.deformable,
    "peripheral": cases.peripheral,
    "table 1": cases.table_1,
}


@dataclass(frozen=True)
class Part:
    """Sections of operators, and names of networks, in the order of their importance."""

    sections: tuple[str, ...]
    names: tuple[str, ...]

    @classmethod
    def of(cls, kind: str, names: Sequence[str]) -> Part:
        """What `seewide bench ops|models [NAME...]` names; nothing is everything.

        Raises:
            InputError: there is no such operator or network among them.
        """
        known = WHOLE.sections if kind == "ops" else WHOLE.names
        for name in names:
            if name not in known:
                raise unknown("operator" if kind == "ops" else "network", name, known)
        chosen = tuple(names) or known
        return cls(chosen, ()) if kind == "ops" else cls((), chosen)

    def cases(self, lsnet: Path | None) -> list[cases.Case]:
        """Of the operators; with LSNet's own kernel if its checkout is given."""
        given = {"aggregation": (lsnet,)}
        return list(chain(*(SECTIONS[name](*given.get(name, ())) for name in self.sections)))

    def networks(self) -> list[networks.Job]:
        """Of the networks."""
        return [job for job in networks.plan() if job[0] in self.names]


WHOLE = Part(tuple(SECTIONS), tuple(dict.fromkeys(job[0] for job in networks.plan())))


def run(
    console: Console, settings: Settings, part: Part, budget: Budget, lsnet: Path | None = None
) -> bool:
    """Compile, measure, judge, print and, of the whole, write; whether nothing failed."""
    _fill_caches(part, budget)
    torch.backends.cudnn.benchmark = True
    limits = Limits.measure(settings.device)
    order = part.cases(lsnet)
    important = [case for case in order if case.section != "table 1"]
    ops = list(operators.measure(important, limits, settings.device, budget))
    nets = list(networks.measure(part.networks(), settings.device, budget))
    curve = [case for case in order if case.section == "table 1"]
    ops += operators.measure(curve, limits, settings.device, budget)
    _table(console, "operators", operators.COLUMNS, ops)
    _table(console, "networks", networks.COLUMNS, nets)
    aims = [(what, figure, "yes" if met else "no") for what, figure, met in judge(ops, nets)]
    speeds = ", ".join(
        f"{str(dtype).removeprefix('torch.')} {speed / 1e12:.0f}"
        for dtype, speed in limits.operations.items()
    )
    facts = conditions(settings) | {
        "triton": triton.__version__,
        "a copy moves": f"{limits.bytes / 1e12:.2f} TB/s",
        "matrix products reach": f"{speeds} TFLOP/s",
    }
    if part == WHOLE:
        write_csv("gpu-operators", operators.COLUMNS, [row.cells() for row in ops], settings)
        write_csv("gpu-networks", networks.COLUMNS, [row.cells() for row in nets], settings)
        write_csv("gpu-aims", AIMS, aims, settings)
        write_page(facts, ops, nets, aims, budget)
    table = make_table("aims", *AIMS, left=AIMS[:2])
    for aim in aims:
        table.add_row(*aim)
    console.print(table)
    print_facts(console, **facts)
    for what in budget.left_out:
        console.print(f"left out, the time was up: {what}", markup=False)
    for what in budget.failed:
        console.print(f"failed: {what}", markup=False)
    return not budget.failed


def _fill_caches(part: Part, budget: Budget) -> None:
    """Compile everything, in processes side by side, for a third of the time at most."""
    workers = max(1, min(14, (os.cpu_count() or 2) - 2))
    warming = [sys.executable, "-m", "benchmarks.gpu", "warm", str(workers)]
    which = [*part.sections, *part.names]
    processes = [subprocess.Popen([*warming, str(index), *which]) for index in range(workers)]
    for process in processes:
        try:
            process.wait(timeout=max(0.1, budget.seconds / 3 - budget.spent()))
        except subprocess.TimeoutExpired:
            process.kill()


def _table(console: Console, title: str, columns: Sequence[str], rows: Sequence) -> None:
    if not rows:
        return
    table = make_table(title, *columns, left=columns[:4])
    for row in rows:
        table.add_row(*map(str, row.cells()))
    console.print(table)


def warm(workers: int, index: int, which: Sequence[str]) -> None:
    """Call every `workers`-th case from `index` on, once with each configuration.

    Args:
        which: sections and names.
    """
    from seewide.kernels.triton import aggregation, deformable, direct, peripheral, toeplitz

    def try_all(kernel, shapes, configs, run, device):
        for config in configs:
            run(config)
        return configs[0]

    for module in (aggregation, deformable, direct, peripheral, toeplitz):
        mock.patch.object(module, "choose", try_all).start()
    part = Part(
        tuple(name for name in WHOLE.sections if name in which),
        tuple(name for name in WHOLE.names if name in which),
    )
    jobs: list[Callable[[], object]] = [
        *(partial(operators.warm, case, "cuda") for case in part.cases(None)),
        *(partial(networks.warm, name, "cuda") for name in part.names),
    ]
    for job in jobs[index::workers]:
        with Budget(BUDGET).survives("warm"):  # what fails is named when it is measured
            job()
        torch.cuda.empty_cache()
