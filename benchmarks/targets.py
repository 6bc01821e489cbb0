"""The six aims of the CPU work, measured in one run: `python -m benchmarks targets [NUMBER...]`.

A line per figure: what was asked, what was measured, whether it is met. What misses is measured
once more with three times the rounds, and the second figure counts: one disturbed measurement
among hundreds would otherwise decide.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from rich.console import Console

from benchmarks import baselines, models
from benchmarks.cases import OURS, STOCK, STOCK_CL, Case, depthwise_case, peripheral_case
from benchmarks.conditions import Settings, describe, write_csv
from benchmarks.ops import BOTH, FORWARD, measure
from benchmarks.shapes import TABLE_1, batch, unique
from benchmarks.timing import Rounds, take_turns
from seewide.console import make_table, track
from seewide.errors import unknown
from seewide.layers import DepthwiseConv2d
from seewide.numerics import deviation
from seewide.ops import depthwise_conv2d, peripheral_conv2d, sharing_grid
from seewide.ops.peripheral import expand_weight

OURS_CL = f"{OURS} channels_last"
COLUMNS = ("aim", "what", "asked", "measured", "met", "where")
GRID = ((1, 64, 56, 56), (8, 384, 14, 14))
GRID_KERNELS = (3, 5, 7, 9, 11, 13, 17, 31, 51, 101)
CURVE_KERNELS = (3, 5, 7, 9, 11, 13, 17, 21, 25, 31)  # as far as UniRepLKNet's Table 1 goes
PERIPHERAL = ((51, 5), (101, 7))  # K and its fine centre
T = TypeVar("T")


@dataclass(frozen=True)
class Aim:
    """One figure and its bound."""

    number: int
    what: str
    asked: str  # ">= 8" or "<= 1.05"
    measured: float
    where: str = ""  # of the worst case

    @property
    def met(self) -> bool:
        sign, _, bound = self.asked.partition(" ")
        return self.measured >= float(bound) if sign == ">=" else self.measured <= float(bound)

    def row(self) -> list[object]:
        """A line of COLUMNS."""
        verdict = "met" if self.met else "MISSED"
        return [self.number, self.what, self.asked, f"{self.measured:.3g}", verdict, self.where]


def twice(run: Callable[[Settings], T], misses: Callable[[T], bool], settings: Settings) -> T:
    """`run`, and where the result misses, `run` with three times the rounds."""
    found = run(settings)
    return run(dataclasses.replace(settings, times=3 * settings.times)) if misses(found) else found


def ours_in(rounds: Rounds) -> str:
    """Our fastest form."""
    return rounds.best([label for label in rounds.rounds if label in (OURS, OURS_CL)])


def rounds_of(case: Case, passes: str, settings: Settings, forms: tuple[str, ...]) -> Rounds:
    """The case's rounds, of these forms alone."""
    return measure(case, passes, settings, only=lambda form: form.name in forms).rounds


def depthwise(settings: Settings) -> Iterator[Aim]:
    """1: never behind stock, far ahead of its default layout."""
    cases = [depthwise_case("grid", shape, K, K) for shape in GRID for K in GRID_KERNELS]
    for where, layer, (C, H, W) in unique(DepthwiseConv2d, lambda layer: layer.kernel_size):
        cases.append(depthwise_case(where, (batch(H), C, H, W), *layer.kernel_size))

    def behind(rounds: Rounds) -> float:
        """Time of ours over stock, each in its best layout."""
        return rounds.ratio(rounds.best([STOCK, STOCK_CL]), ours_in(rounds))

    for passes, least in ((FORWARD, 11), (BOTH, 13)):
        late, ahead = [], []
        for case in cases:
            K = int(case.kernel.partition("x")[0])

            def run(settings: Settings, case=case, passes=passes) -> Rounds:
                return rounds_of(case, passes, settings, (STOCK, STOCK_CL, OURS, OURS_CL))

            rounds = twice(run, lambda rounds: behind(rounds) > 1.05, settings)
            name = f"K={K} on {'x'.join(map(str, case.shape))}"
            late.append((behind(rounds), name))
            if least <= K:
                ahead.append((rounds.ratio(ours_in(rounds), STOCK), name))
        time, place = max(late)
        yield Aim(1, f"depthwise {passes}: time over stock's best layout", "<= 1.05", time, place)
        times, place = min(ahead)
        what = f"depthwise {passes}: times stock NCHW, K={least} to 101"
        yield Aim(1, what, ">= 8", times, place)


def peripheral(settings: Settings) -> Iterator[Aim]:
    """2: at the cost of its cells."""
    shape = (1, 64, 56, 56)
    for passes in (FORWARD, BOTH):
        for (K, center), bound in zip(PERIPHERAL, (25, 300), strict=True):
            case = peripheral_case("grid", shape, sharing_grid(K, center))
            rounds = rounds_of(case, passes, settings, (STOCK, OURS, OURS_CL))
            what = f"peripheral K={K}, {passes}: times stock NCHW"
            yield Aim(2, what, f">= {bound}", rounds.ratio(ours_in(rounds), STOCK))
    grid = sharing_grid(*PERIPHERAL[1])
    x, weight = torch.randn(shape), torch.randn(shape[1], len(grid), len(grid))
    dense = torch.randn(shape[1], 1, 13, 13)
    calls = {
        "peripheral": lambda: peripheral_conv2d(x, weight, grid),
        "dense": lambda: depthwise_conv2d(x, dense),
    }
    time = take_turns(calls, 3 * settings.rounds, settings.seconds).ratio("dense", "peripheral")
    yield Aim(2, "peripheral K=101, forward: time over our dense 13 x 13", "<= 4", time)
    error, place = max(
        (_error(side, K, center), f"K={K} on {side} x {side}")
        for side in (56, 128, 256)
        for K, center in PERIPHERAL
    )
    yield Aim(2, "peripheral: error against float64, relative", "<= 1e-5", error, place)


def _error(side: int, K: int, center: int) -> float:
    grid = sharing_grid(K, center)
    x, weight = torch.randn(1, 2, side, side), torch.randn(2, len(grid), len(grid))
    dense = expand_weight(weight.double(), grid).unsqueeze(1)
    want = baselines.fft_convolution(x.double(), dense)  # 1e-15 off; the dense one takes minutes
    return deviation(peripheral_conv2d(x, weight, grid), want)


def unireplknet(settings: Settings) -> Iterator[Aim]:
    """3: as fast per multiply-add as ConvNeXt, ahead of the authors' form."""
    forms = (models.MERGED, models.AUTHORS, models.AUTHORS_CL)
    for name, yardstick in (("unireplknet_a", "convnext_atto"), ("unireplknet_t", "convnext_tiny")):
        for images in (1, 8):

            def run(settings: Settings, name=name, yardstick=yardstick, images=images):
                return models.measure(name, images, settings, lambda form: form in forms, yardstick)

            def aims(run: models.Run, what=f"{name}, batch {images}", yardstick=yardstick):
                ours = models.MERGED
                times = [run.over_authors(ours, best) for best in (True, False)]
                return [
                    Aim(3, f"{what}: time per MAC over {yardstick}", "<= 1.2", run.per_mac(ours)),
                    Aim(3, f"{what}: times the authors' best layout", ">= 1.25", times[0]),
                    Aim(3, f"{what}: times the authors' default layout", ">= 2", times[1]),
                ]

            found = twice(run, lambda run: not all(aim.met for aim in aims(run)), settings)
            yield from aims(found)


def families(settings: Settings) -> Iterator[Aim]:
    """4: LSNet, UniConvNet and PeLK."""
    forms = (models.MERGED, models.AUTHORS, models.AUTHORS_CL)
    for name, bound in (("lsnet_t", 1.3), ("uniconvnet_a", 2.5)):
        for images in (1, 8):

            def run(settings: Settings, name=name, images=images) -> models.Run:
                return models.measure(name, images, settings, lambda form: form in forms)

            def misses(run: models.Run, bound=bound) -> bool:
                return run.over_authors(models.MERGED, best=True) < bound

            found = twice(run, misses, settings)
            for best, layout in ((True, "best"), (False, "default")):
                times = found.over_authors(models.MERGED, best)
                what = f"{name}, batch {images}: times the authors' {layout} layout"
                yield Aim(4, what, f">= {bound}", times)
    for images in (1, 8):
        rounds = models.side_by_side(("pelk_t", "pelk101_t", "convnext_tiny"), images, settings)
        convnext = rounds.best([label for label in rounds.rounds if "convnext" in label])
        pelk, pelk101 = f"pelk_t {models.MERGED}", f"pelk101_t {models.MERGED}"
        time = rounds.ratio(convnext, pelk)
        yield Aim(4, f"pelk_t, batch {images}: time over convnext_tiny", "<= 1.5", time)
        time = rounds.ratio(pelk, pelk101)
        yield Aim(4, f"pelk101_t, batch {images}: time over pelk_t", "<= 1.15", time)


def training(settings: Settings) -> Iterator[Aim]:
    """5: a step of unireplknet_a."""
    run = models.measure_training("unireplknet_a", settings)
    for best, layout in ((True, "best"), (False, "default")):
        times = run.over_authors(OURS, best)
        yield Aim(5, f"{run.what}: times the authors' {layout} layout", ">= 3", times)
    least = min(run.memory[label] for label in (models.AUTHORS, models.AUTHORS_CL))
    memory = run.memory[OURS] / least
    where = f"{run.memory[OURS] / 2**20:.0f} and {least / 2**20:.0f} MiB"
    yield Aim(5, f"{run.what}: peak memory over theirs", "<= 1", memory, where)


def curve(settings: Settings) -> Iterator[Aim]:
    """6: time against K follows the arithmetic: the taps that meet the map, times one rate."""
    for shape in TABLE_1:
        macs, times = [], []
        for K in CURVE_KERNELS:
            case = depthwise_case("grid", shape, K, K)
            rounds = rounds_of(case, FORWARD, settings, (STOCK_CL, OURS, OURS_CL))
            macs.append(case.macs)
            times.append(rounds.median(ours_in(rounds)))
        off, K = farthest(np.array(macs), np.array(times))
        what = f"depthwise on {'x'.join(map(str, shape))}: farthest from the arithmetic's line"
        yield Aim(6, what, "<= 2", off, f"K={CURVE_KERNELS[K]}")


def farthest(macs: np.ndarray, times: np.ndarray) -> tuple[float, int]:
    """The largest factor, up or down, between times and the proportional line that fits best."""
    residual = np.log(times / macs)
    residual = np.abs(residual - (residual.max() + residual.min()) / 2)
    return float(np.exp(residual.max())), int(residual.argmax())


AIMS: dict[str, Callable[[Settings], Iterator[Aim]]] = {
    "1": depthwise,
    "2": peripheral,
    "3": unireplknet,
    "4": families,
    "5": training,
    "6": curve,
}


def run(names: list[str], settings: Settings, console: Console) -> None:
    """Measure, print and write the file."""
    for name in names:
        if name not in AIMS:
            raise unknown("aim", name, AIMS)
    if not settings.quick:
        settings = dataclasses.replace(settings, patience=0.5)
    found = [
        aim
        for name in track(names or list(AIMS), "measuring", console)
        for aim in AIMS[name](settings)
    ]
    table = make_table("", *COLUMNS, left=("what", "asked", "met", "where"))
    for aim in found:
        table.add_row(*map(str, aim.row()))
    console.print(table)
    describe(settings, console)
    if not (settings.quick or names):
        path = write_csv("targets", COLUMNS, [aim.row() for aim in found], settings)
        console.print(f"written: {path}", soft_wrap=True)
