"""How long `make bench-gpu` will take, without a GPU: `python -m benchmarks.gpu plan`.

Times of calls are those expected of an H200 in the notes the kernels were written from; what
PyTorch's own kernels take by their rate in RepLKNet's Table 1, scaled to this chip. What a
measurement costs beside its calls is guessed on the safe side.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console

from benchmarks.gpu import cases, networks, operators
from benchmarks.gpu.aims import DTYPES, EXPECTED
from benchmarks.gpu.cases import BACKWARD, BY_WEIGHT, COMPILED, Case
from benchmarks.gpu.clock import SLOW
from seewide.console import make_table

COPY = 4.3e12  # bytes per second
NATIVE = 1.7e12  # depthwise multiply-adds per second of PyTorch's kernel, taps outside counted
NATIVE_BY_WEIGHT = 0.74e12
OUR_CHOICE = 0.3  # seconds: kernels are loaded, candidates are timed for 25 ms each
CUDNN_CHOICE = 0.5  # seconds: it tries its algorithms, which it has for channels-last maps
WINDOW = 0.15  # seconds that a fast call is timed for, with inputs and cleared caches
COMPILING = 8.0  # seconds for a form under torch.compile, its parts already on disk
START = 110.0  # seconds: processes that fill Triton's and Inductor's caches
INFERENCE, TRAINING, COMPILED_NETWORK = 3.0, 5.0, 30.0  # seconds for a network, all its forms


def of_form(case: Case, what: str, name: str) -> float:
    """Seconds to measure one form of a case in one pass."""
    call = _call(case, what, name)
    timed = 5 * call if call > SLOW else WINDOW + 2 * call
    choice = OUR_CHOICE if operators.is_ours(name) else CUDNN_CHOICE * ("last" in name)
    return choice + timed + (COMPILING if name == COMPILED else 0.0)


def _call(case: Case, what: str, name: str) -> float:
    """Seconds that one call takes."""
    if case.section in ("depthwise", "table 1", "peripheral"):
        N, C, H, W = case.shape
        K = int(case.kernel.removeprefix("K="))
        if operators.is_ours(name) or "fft" in name:
            known = EXPECTED.get((case.shape, K))
            own = known[DTYPES.index(case.dtype)] / 1e3 if known else 1e-3
            return 5 * own if "fft" in name or what == BY_WEIGHT else own
        return N * C * H * W * K * K / (NATIVE_BY_WEIGHT if what == BY_WEIGHT else NATIVE)
    elements = 1
    for size in case.shape:
        elements *= size
    passes = 30 if operators.is_ours(name) else 200  # of the map through memory
    return passes * (3 if what == BACKWARD else 1) * 4 * elements / COPY


def of_operators(these: Iterable[Case]) -> Iterator[tuple[str, float]]:
    """Title and seconds of every measurement."""
    for case in these:
        for what in case.passes:
            seconds = sum(of_form(case, what, name) for name in case.forms_of(what))
            yield f"{case.title}, {what}", seconds


def of_networks() -> Iterator[tuple[str, float]]:
    """Title and seconds of every measurement."""
    costs = {networks.INFERENCE: INFERENCE, networks.TRAINING: TRAINING, COMPILED: COMPILED_NETWORK}
    for name, what, _, _ in networks.plan():
        yield f"{name}, {what}", costs[what]


def parts() -> list[tuple[str, int, float]]:
    """What is done, measurements, seconds."""
    found = [("compiling, in parallel", 1, START)]
    groups = {
        "depthwise": cases.depthwise(), "aggregation": cases.aggregation(),
        "dcnv3": cases.deformable(), "peripheral": cases.peripheral(), "table 1": cases.table_1(),
    }  # fmt: skip
    timed = {name: list(of_operators(group)) for name, group in groups.items()}
    timed["networks"] = list(of_networks())
    for name, rows in timed.items():
        found.append((name, len(rows), sum(seconds for _, seconds in rows)))
    return found


def show(console: Console) -> None:
    """Print the table and its sum."""
    table = make_table("expected on an H200", "what", "measurements", "seconds", left=("what",))
    rows = parts()
    for name, count, seconds in rows:
        table.add_row(name, str(count), f"{seconds:.0f}")
    table.add_row("all", str(sum(row[1] for row in rows)), f"{sum(row[2] for row in rows):.0f}")
    console.print(table)
