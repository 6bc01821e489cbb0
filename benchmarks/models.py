"""Networks against their authors' form and timm's: `python -m benchmarks models [NAME...]`.

Every network is timed merged and in training form, beside the authors' form with the same weights
in both layouts (authors_form.py) and a ConvNeXt of about its size; then as a training step.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import timm
import torch
from rich.console import Console
from torch import Tensor, nn

import seewide
from benchmarks.authors_form import authors_form
from benchmarks.conditions import Settings, describe, write_csv
from benchmarks.ops import WrongResult
from benchmarks.timing import Rounds, peak_bytes, take_turns
from seewide.analysis.cost import count_cost
from seewide.console import make_table, track
from seewide.errors import unknown
from seewide.models import list_models
from seewide.models._staged import StagedNet
from seewide.numerics import deviation
from seewide.testing import randomize

NETWORKS = (
    *("unireplknet_a", "unireplknet_t", "lsnet_t", "lsnet_b", "uniconvnet_a", "uniconvnet_t"),
    *("pelk_t", "pelk101_t", "replknet_31b", "repvit_m1_0", "fastvit_t8"),
)
OURS, MERGED, TRAINING = "seewide", "seewide merged", "seewide training form"
AUTHORS, AUTHORS_CL = "authors", "authors channels_last"
TIMM, TIMM_CL = "timm", "timm channels_last"
SMALL = 1.5e9  # multiply-adds up to which a network is measured by convnext_atto
LIMIT = 1e-4  # relative, between our logits and the authors' form's
NEAR = 4  # times as far as theirs from the float64 result, where that is farther than LIMIT
SIDE, TRAIN_SIDE, TRAIN_BATCH = 224, 128, 16
COLUMNS = (
    *("network", "what", "form", "images/s", "median ms", "quartile 1", "quartile 3", "rounds"),
    *("times authors", "times authors' best", "GMACs", "time per MAC / convnext", "MiB"),
)


@dataclass(frozen=True)
class Run:
    """One network, one batch: the rounds of its forms and of its yardstick."""

    name: str
    what: str
    batch: int
    macs: float
    yardstick: str  # a ConvNeXt
    yardstick_macs: float
    rounds: Rounds
    memory: dict[str, int]

    def per_mac(self, label: str) -> float:
        """Time per multiply-add over that of the yardstick in its best layout."""
        best = self.rounds.best([x for x in self.rounds.rounds if x.startswith(self.yardstick)])
        macs = self.yardstick_macs if label.startswith(self.yardstick) else self.macs
        return self.yardstick_macs / (macs * self.rounds.ratio(label, best))

    def over_authors(self, label: str, best: bool) -> float | None:
        """How many times as fast as the authors' form, in its default or its best layout."""
        theirs = [x for x in self.rounds.rounds if x in (AUTHORS, AUTHORS_CL)]
        if not theirs:
            return None
        return self.rounds.ratio(label, self.rounds.best(theirs) if best else AUTHORS)

    def rows(self) -> Iterator[list[object]]:
        """A line of COLUMNS per form."""
        for label, times in self.rounds.rounds.items():
            low, high = self.rounds.spread(label)
            median = self.rounds.median(label)
            default, best = (self.over_authors(label, each) for each in (False, True))
            macs = self.yardstick_macs if label.startswith(self.yardstick) else self.macs
            yield [
                self.name, self.what, label, f"{self.batch / median:.2f}", f"{1e3 * median:.2f}",
                f"{1e3 * low:.2f}", f"{1e3 * high:.2f}", len(times),
                "" if default is None else f"{default:.2f}", "" if best is None else f"{best:.2f}",
                f"{macs / 1e9:.3f}", f"{self.per_mac(label):.2f}",
                f"{self.memory[label] / 2**20:.0f}",
            ]  # fmt: skip


def _drawn(name: str) -> nn.Module:
    """The network with weights in which a difference would show."""
    torch.manual_seed(0)
    return randomize(timm.create_model(name)).eval()


def forms_of(name: str, compiled: bool = False) -> dict[str, tuple[nn.Module, bool]]:
    """label -> (network in evaluation, whether its input is channels last)."""
    model = _drawn(name)
    if not isinstance(model, StagedNet):
        forms = {TIMM: (model, False), TIMM_CL: (_last(_drawn(name)), True)}
    else:
        merged = seewide.fuse(model)
        forms = {
            MERGED: (merged, False),
            TRAINING: (model, False),
            AUTHORS: (authors_form(merged), False),
            AUTHORS_CL: (_last(authors_form(merged)), True),
        }
    if compiled:
        forms |= {f"{x}, compiled": (torch.compile(m), cl) for x, (m, cl) in forms.items()}
    return forms


def _last(model: nn.Module) -> nn.Module:
    return model.to(memory_format=torch.channels_last)


def _layout(x: Tensor, channels_last: bool) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last) if channels_last else x


def yardstick_of(macs: float) -> str:
    """timm's ConvNeXt of about this size."""
    return "convnext_atto" if macs <= SMALL else "convnext_tiny"


def measure(
    name: str,
    batch: int,
    settings: Settings,
    only: Callable[[str], bool] = lambda label: True,
    yardstick: str | None = None,
    side: int = SIDE,
) -> Run:
    """Images through a network in evaluation.

    Raises:
        WrongResult: the authors' form computes something else than ours.
    """
    forms = {k: v for k, v in forms_of(name, settings.compiled).items() if only(k)}
    macs = count_cost(next(iter(forms.values()))[0], (1, 3, side, side)).macs
    yardstick = yardstick or yardstick_of(macs)
    if yardstick != name:
        forms |= {
            label.replace(TIMM, yardstick): form for label, form in forms_of(yardstick).items()
        }
    x = torch.randn(batch, 3, side, side).to(settings.device, settings.dtype)
    calls, outputs, memory = {}, {}, {}
    for label, (model, channels_last) in forms.items():
        model = model.to(settings.device, settings.dtype)
        call = _evaluation(model, _layout(x, channels_last))
        outputs[label], calls[label] = call(), call
        memory[label] = peak_bytes(call, settings.device)

    def exact(label: str) -> Tensor:
        return _evaluation(copy.deepcopy(forms[label][0]).double(), x.double())()

    _check(name, outputs, exact)
    rounds = take_turns(calls, settings.rounds, 4 * settings.seconds)
    what = f"batch {batch}, {side} px"
    yard_macs = count_cost(timm.create_model(yardstick), (1, 3, side, side)).macs
    return Run(name, what, batch, macs, yardstick, yard_macs, rounds, memory)


def side_by_side(names: tuple[str, ...], batch: int, settings: Settings) -> Rounds:
    """Several networks in turns, ours merged, timm's in both layouts: "NAME FORM" -> rounds."""
    x = torch.randn(batch, 3, SIDE, SIDE)
    calls = {}
    for name in names:
        for label, (model, channels_last) in forms_of(name).items():
            if label in (MERGED, TIMM, TIMM_CL):
                calls[f"{name} {label}"] = call = _evaluation(model, _layout(x, channels_last))
                call()
    return take_turns(calls, settings.rounds, 4 * settings.seconds)


def _evaluation(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    def call() -> Tensor:
        with torch.inference_mode():
            return model(x)

    return call


def _check(name: str, outputs: dict[str, Tensor], exact: Callable[[str], Tensor]) -> None:
    """Ours, merged or not, equal the authors' form.

    Some networks multiply rounding errors (LSNet-B with random weights: 1e-2 between the authors'
    form in one layout and in the other). There, ours must be as near to the float64 result as
    theirs is.
    """
    ours = {k: y for k, y in outputs.items() if k.startswith((OURS, AUTHORS))}
    if len(ours) < 2:
        return
    first = AUTHORS if AUTHORS in ours else next(iter(ours))
    want, limit = ours[first], LIMIT if ours[first].dtype == torch.float32 else 0.1
    if max(deviation(got, want) for got in ours.values()) > limit:
        want = exact(first)
        limit = max(limit, NEAR * deviation(ours[first], want))
    for label, got in ours.items():
        found = deviation(got, want)
        if found > limit:
            raise WrongResult(
                f"{name}: {label} deviates from {first} by {found:.1e}, more than {limit:.0e}; no "
                "speed is printed"
            )


def measure_training(name: str, settings: Settings) -> Run:
    """A step: forward, backward, AdamW, on a batch of 16 at 128 pixels; training form."""
    model = timm.create_model(name).train()
    nets = {OURS: (model, False)} if isinstance(model, StagedNet) else {TIMM: (model, False)}
    if isinstance(model, StagedNet):
        nets |= {AUTHORS: (authors_form(model), False), AUTHORS_CL: (authors_form(model), True)}
    macs = count_cost(timm.create_model(name).eval(), (1, 3, TRAIN_SIDE, TRAIN_SIDE)).macs
    yardstick = yardstick_of(macs * (SIDE / TRAIN_SIDE) ** 2)
    if yardstick != name:
        nets |= {
            yardstick: (timm.create_model(yardstick).train(), False),
            f"{yardstick} channels_last": (timm.create_model(yardstick).train(), True),
        }
    x = torch.randn(TRAIN_BATCH, 3, TRAIN_SIDE, TRAIN_SIDE)
    y = torch.randint(1000, (TRAIN_BATCH,))
    calls, memory = {}, {}
    for label, (net, channels_last) in nets.items():
        net = (_last(net) if channels_last else net).to(settings.device, settings.dtype)
        call = _step(net, _layout(x.to(settings.device, settings.dtype), channels_last), y)
        call()  # makes the optimizer's state
        calls[label], memory[label] = call, peak_bytes(call, settings.device)
    rounds = take_turns(calls, settings.rounds, 8 * settings.seconds)
    cost = count_cost(timm.create_model(yardstick), (1, 3, TRAIN_SIDE, TRAIN_SIDE))
    what = f"training step, batch {TRAIN_BATCH}, {TRAIN_SIDE} px"
    return Run(name, what, TRAIN_BATCH, 3 * macs, yardstick, 3 * cost.macs, rounds, memory)


def _step(model: nn.Module, x: Tensor, y: Tensor) -> Callable[[], None]:
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    y = y.to(x.device)

    def step() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x).float(), y).backward()
        optimizer.step()

    return step


def run(names: list[str], settings: Settings, console: Console) -> None:
    """Measure, print and write the file."""
    for name in names:
        if not timm.is_model(name):
            raise unknown("model", name, [*list_models(), *NETWORKS])
    if not names:
        names = ["unireplknet_a", "lsnet_t"] if settings.quick else list(NETWORKS)
    work: list[Callable[[], Run]] = []
    for name in names:
        for batch in (1, 8):
            work.append(lambda name=name, batch=batch: measure(name, batch, settings))
        if not settings.quick:
            work.append(lambda name=name: measure_training(name, settings))
    runs = [each() for each in track(work, "measuring networks", console)]
    console.print(table(runs))
    describe(settings, console)
    if not settings.quick:
        rows = [row for run in runs for row in run.rows()]
        console.print(f"written: {write_csv('models', COLUMNS, rows, settings)}", soft_wrap=True)


def table(runs: list[Run]):
    """A line per form; network and batch are named on the first."""
    rich = make_table("", *COLUMNS, left=("network", "what", "form"))
    for run in runs:
        for index, row in enumerate(run.rows()):
            cells = [str(cell) for cell in row]
            rich.add_row(*(cells if index == 0 else ["", "", *cells[2:]]))
    return rich
