"""Networks in inference runtimes: `python -m benchmarks runtimes [NAME...] [--threads N]`.

For each network and batch, in turns: the fused model (of timm's networks: after
`reparameterize_model`) run by PyTorch, `seewide.optimize`, ONNX Runtime and OpenVINO, the last two
on a file exported from the fused model. With one thread, times are processor time of the process:
other processes on the machine disturb that less than the clock. With more threads they are of the
clock, and each runtime waits without spinning.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import timm
import torch
from rich.console import Console
from timm.models import reparameterize_model

import seewide
from benchmarks.conditions import Settings, describe, write_csv
from benchmarks.timing import Rounds
from seewide.console import make_table, track
from seewide.errors import unknown
from seewide.models._staged import StagedNet
from seewide.numerics import deviation
from seewide.testing import randomize

NETWORKS = (
    *("unireplknet_a", "unireplknet_t", "lsnet_t", "uniconvnet_a", "pelk_t", "pelk_t_dense"),
    *("replknet_31b", "slak_t", "convnext_atto", "convnext_tiny", "repvit_m1_0"),
)
EAGER, OPTIMIZED = "PyTorch, fused", "seewide.optimize"
RUNTIMES = {"ONNX Runtime": "onnxruntime", "OpenVINO": "openvino"}
SIDE = 224
COLUMNS = (
    *("network", "batch", "form", "images/s", "median ms", "quartile 1", "quartile 3", "rounds"),
    *("times PyTorch", "times the faster runtime", "deviation"),
)


@dataclass(frozen=True)
class Run:
    """One network and batch: the rounds of its forms, and their deviations from the first."""

    name: str
    batch: int
    rounds: Rounds
    deviations: dict[str, float]

    def rows(self) -> Iterator[list[object]]:
        """A line of COLUMNS per form."""
        fastest = self.rounds.best([label for label in self.rounds.rounds if label in RUNTIMES])
        for label, times in self.rounds.rounds.items():
            low, high = self.rounds.spread(label)
            median = self.rounds.median(label)
            yield [
                self.name, self.batch, label, f"{self.batch / median:.2f}", f"{1e3 * median:.2f}",
                f"{1e3 * low:.2f}", f"{1e3 * high:.2f}", len(times),
                f"{self.rounds.ratio(label, EAGER):.2f}",
                f"{self.rounds.ratio(label, fastest):.2f}", f"{self.deviations[label]:.1e}",
            ]  # fmt: skip


def measure(name: str, batch: int, settings: Settings) -> Run:
    """Time one network in all runtimes.

    Raises:
        RuntimeError: `seewide.optimize` or a runtime computes something else.
    """
    torch.manual_seed(0)
    model = timm.create_model(name).eval()
    ours = isinstance(model, StagedNet)
    if ours:  # with timm's, whose batch norms would magnify rounding, as initialised
        model = randomize(model)
    fused = (seewide.fuse(model) if ours else reparameterize_model(model)).eval()
    x = torch.randn(batch, 3, SIDE, SIDE)
    forms = {EAGER: fused, OPTIMIZED: seewide.optimize(fused, x)}
    forms |= {k: seewide.optimize(fused, x, runtime=v) for k, v in RUNTIMES.items()}
    calls = {label: _call(form, x) for label, form in forms.items()}
    want = calls[EAGER]()
    deviations = {label: deviation(call(), want) for label, call in calls.items()}
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    return Run(name, batch, _take_turns(calls, settings, clock), deviations)


def _call(form: torch.nn.Module, x: torch.Tensor) -> Callable[[], torch.Tensor]:
    def call() -> torch.Tensor:
        with torch.inference_mode():
            return form(x)

    return call


def _take_turns(calls: dict[str, Callable], settings: Settings, clock: Callable) -> Rounds:
    """Every round times every form, beginning with another one each time."""
    rounds: dict[str, list[float]] = {label: [] for label in calls}
    labels = list(calls)
    for turn in range(settings.rounds):
        first = turn % len(labels)
        for label in labels[first:] + labels[:first]:
            calls[label]()  # brings its own weights back to the cache, as in a loop over images
            started = clock()
            calls[label]()
            rounds[label].append(clock() - started)
    return Rounds(rounds)


def run(names: list[str], settings: Settings, console: Console) -> None:
    """Measure, print and write the file."""
    for name in names:
        if not timm.is_model(name):
            raise unknown("model", name, NETWORKS)
    names = names or (["unireplknet_a", "lsnet_t"] if settings.quick else list(NETWORKS))
    batch = 1 if torch.get_num_threads() == 1 else 8
    runs = [measure(name, batch, settings) for name in track(names, "measuring runtimes", console)]
    table = make_table("", *COLUMNS, left=("network", "form"))
    rows = [row for each in runs for row in each.rows()]
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)
    describe(settings, console)
    if not settings.quick:
        label = f"runtimes-{torch.get_num_threads()}-threads-batch-{batch}"
        console.print(f"written: {write_csv(label, COLUMNS, rows, settings)}", soft_wrap=True)
