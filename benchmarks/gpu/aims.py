"""What the GPU kernels aim at, held against one run's figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from benchmarks.gpu import networks, operators
from benchmarks.gpu.cases import (
    AUTHORS,
    BACKWARD,
    BY_INPUT,
    BY_WEIGHT,
    FORWARD,
    OURS,
    PUBLISHED,
)

# Milliseconds of a forward pass from K = 13 up, predicted from the code (bfloat16, float32).
EXPECTED = {
    ((64, 384, 16, 16), 13): (0.021, 0.034),
    ((64, 384, 16, 16), 31): (0.026, 0.041),
    ((64, 384, 32, 32), 13): (0.072, 0.193),
    ((64, 384, 32, 32), 31): (0.138, 0.358),
    ((64, 384, 64, 64), 13): (0.389, 0.980),
    ((64, 384, 64, 64), 31): (0.935, 2.880),
    ((128, 160, 28, 28), 13): (0.057, 0.137),
    ((128, 320, 14, 14), 13): (0.023, 0.044),
    ((128, 640, 7, 7), 13): (0.013, 0.016),
    ((128, 36, 56, 56), 51): (0.190, 0.606),
    ((128, 72, 28, 28), 49): (0.054, 0.129),
    ((128, 144, 14, 14), 47): (0.018, 0.030),
    ((128, 48, 56, 56), 101): (0.310, 1.050),
    ((2, 128, 200, 336), 31): (0.360, 0.780),
    ((2, 36, 200, 336), 51): (0.200, 0.465),
    ((1, 48, 128, 512), 101): (0.510, 1.008),
}
DTYPES = (torch.bfloat16, torch.float32)
Aim = tuple[str, str, bool]  # what, figure, met


def judge(ops: Sequence[operators.Row], nets: Sequence[networks.Row]) -> Iterator[Aim]:
    """Each aim whose figures were measured."""
    ours = [row for row in ops if row.form == OURS and row.rival_ms is not None]
    yield from _depthwise([row for row in ours if row.case.section == "depthwise"])
    for section, what, least in (
        *(("dcnv3", FORWARD, 2.5), ("dcnv3", BACKWARD, 3.0)),
        *(("peripheral", FORWARD, 1.0), ("peripheral", BY_INPUT, 1.0)),
    ):
        same = [row for row in ours if row.case.section == section and row.what == what]
        yield from _worst(f"{section}, {what}", least, same)
    yield from _authors(ops)
    yield from _networks(nets)


def _worst(title: str, least: float, rows: list[operators.Row]) -> Iterator[Aim]:
    if rows:
        worst = min(rows, key=lambda row: row.rival_ms / row.ms)
        ratio = worst.rival_ms / worst.ms
        figure = f"{ratio:.2f} times at worst, {worst.case.title}"
        yield f"{title}: at least {least} times the best rival", figure, ratio >= least


def _depthwise(rows: list[operators.Row]) -> Iterator[Aim]:
    yield from _worst("depthwise forward", 1.0, [row for row in rows if row.what == FORWARD])
    for row in rows:
        if row.case.shape == (64, 384, 32, 32) and row.case.kernel == "K=31":
            least = 25.0 if row.case.dtype == torch.bfloat16 else 12.0
            if row.what == BY_WEIGHT:
                least = 50.0
            yield from _worst(f"{row.case.title}, {row.what}", least, [row])
    for row in rows:
        K = int(row.case.kernel.removeprefix("K="))
        expected = EXPECTED.get((row.case.shape, K))
        if row.what == FORWARD and expected is not None:
            limit = 1.5 * expected[DTYPES.index(row.case.dtype)]
            yield f"{row.case.title}: {limit:.3f} ms or less", f"{row.ms:.3f} ms", row.ms <= limit


def _authors(ops: Sequence[operators.Row]) -> Iterator[Aim]:
    """SKA beside the authors' algorithm and, if their checkout was given, their code."""
    times = {(row.case.title, row.what, row.form): row for row in ops}
    for (title, what, form), row in times.items():
        least = {torch.float16: 2.5, torch.bfloat16: 4.0}.get(row.case.dtype)
        if form in (PUBLISHED, AUTHORS) and least is not None:
            ratio = row.ms / times[title, what, OURS].ms
            aim = f"{title}, {what}: at least {least} times {form}"
            yield aim, f"{ratio:.2f} times", ratio >= least


def _networks(rows: Sequence[networks.Row]) -> Iterator[Aim]:
    best: dict[tuple[str, str], networks.Row] = {}  # the faster layout or form, without stock ones
    stock: dict[tuple[str, str], networks.Row] = {}
    for row in rows:
        if networks.GRAPH in row.form or networks.COMPILED in row.form:
            continue
        kept = stock if row.form == networks.STOCK else best
        key = (row.network, row.what)
        if key not in kept or row.ms < kept[key].ms:
            kept[key] = row

    def speed(name: str) -> float | None:
        row = best.get((name, networks.INFERENCE))
        return None if row is None else row.speed

    pairs = [
        ("pelk_t", "slak_t", 1.5), ("pelk101_t", "pelk_t", 0.94),
        ("unireplknet_t", "convnext_tiny", 1.0),
        *(("lsnet_t", rival, 1.0) for rival in networks.RIVALS[1:]),
    ]  # fmt: skip
    for name, rival, least in pairs:
        ours, theirs = speed(name), speed(rival)
        if ours is not None and theirs is not None:
            figure = f"{ours / theirs:.2f} times"
            yield f"{name}: at least {least} times {rival}'s speed", figure, ours >= least * theirs
    key = ("unireplknet_t", networks.TRAINING)
    if key in best and key in stock:
        ratio = stock[key].ms / best[key].ms
        yield "unireplknet_t: a training step twice as fast", f"{ratio:.2f} times", ratio >= 2
        share = best[key].bytes / max(1, stock[key].bytes)
        yield "unireplknet_t: training in no more memory", f"{share:.2f} of stock's", share <= 1
