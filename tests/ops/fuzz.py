"""Many random calls of all operators against their definitions in float64: `make fuzz`.

    python tests/ops/fuzz.py [--cases 10000] [--seconds 3000] [--dry]

Prints the smallest failing case as a program, and writes a table of how many cases of each kind
ran, with its conditions, to benchmarks/results.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from pathlib import Path

import torch
from hypothesis import HealthCheck, Verbosity, given, settings
from hypothesis import seed as seeded
from operator_cases import CONTEXTS, OPERATORS, Case, as_code, cases
from operator_checks import check

from benchmarks.conditions import Settings, conditions, write_rows

COMPILED_ONE_IN = 100  # a compilation takes as long as 100 other cases
BATCH = 250  # cases that hypothesis draws in one run, each run with a seed of its own


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=float("inf"), help="stop early after this")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dry", action="store_true", help="write no result file")
    arguments = parser.parse_args()
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True  # with NaN: shows unwritten results
    found = conditions(Settings())  # before the run: names the revision that it imports
    start, ran, failures = time.monotonic(), Counter(), []

    batch = 0
    while ran.total() < arguments.cases and time.monotonic() - start < arguments.seconds:
        failure = run_batch(arguments.seed + batch, CONTEXTS, BATCH, ran)
        failure = failure or run_batch(
            arguments.seed + batch, ("compile",), BATCH // COMPILED_ONE_IN, ran
        )
        if failure is not None:
            failures.append(failure)
            case, error = failure
            print(f"FAILED: {error}\n\n{as_code(case)}\n", flush=True)
        batch += 1
        print(f"{ran.total()} cases, {len(failures)} failures", file=sys.stderr, flush=True)

    summary = f"{ran.total()} in {time.monotonic() - start:.0f} s, {len(failures)} failed"
    print(summary)
    if not arguments.dry:
        print(write_table(ran, found | {"command": " ".join(sys.argv), "cases": summary}))
    return 1 if failures else 0


def write_table(ran: Counter, found: dict[str, str]) -> Path:
    """benchmarks/results/fuzz-operators-*.csv: a row per operator, a column per kind of case."""
    kinds = [*CONTEXTS, "compile"]
    rows = [[name, *(ran[name, kind] for kind in kinds)] for name in sorted(OPERATORS)]
    rows.append(["all", *(sum(ran[name, kind] for name in OPERATORS) for kind in kinds)])
    name = f"fuzz-operators-torch{torch.__version__.partition('+')[0]}"
    return write_rows(name, found, ["operator", *kinds], rows)


def run_batch(
    seed: int, contexts: tuple[str, ...], count: int, ran: Counter
) -> tuple[Case, Exception] | None:
    """Draw and check `count` cases; the smallest failing one that hypothesis finds, or None."""
    last: list[Case] = []

    @seeded(seed)
    @settings(
        max_examples=count,
        deadline=None,
        database=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(cases(contexts))
    def run(case: Case) -> None:
        last[:] = [case]
        check(case)
        ran[case.operator, case.context] += 1

    try:
        run()
    except Exception as error:  # any exception of a documented call is a finding
        return last[0], error
    return None


if __name__ == "__main__":
    sys.exit(main())
