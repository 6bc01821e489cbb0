"""Data for forecasting: a CSV file of times and columns of numbers, or arrays of stations.

Layouts: CSV with the time in the first column (ETT: `date,HUFL,...,OT`; one file per variable with
a column per station); `<name>_train.npy`, `_val.npy`, `_test.npy` of (T, M) or (T, M, 1) with
`data_time_<split>.npy` and `stations_sorted.npy`, as of Global Temp and Wind.
"""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

import numpy as np

from seewide.errors import InputError

from .samples import Sample, Samples

ETT_HOURS = (8640, 2880, 2880)  # rows of training, validation and test: 12, 4 and 4 months
MISSING = ("", "na", "nan", "null", "none")
FORMATS = ("%Y-%m-%d %H:%M:%S", "%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M", "%Y-%m-%d", "%Y-%m-%dT%H:%M:%S")


@dataclass(frozen=True)
class SeriesTable:
    """T rows of M columns.

    Attributes:
        columns: their names.
        values_TM: float32; gaps are filled by linear interpolation in time.
        missing_TM: True where there was a gap.
        times: of the rows, ascending with one step; empty if the file has none.
    """

    columns: tuple[str, ...]
    values_TM: np.ndarray
    missing_TM: np.ndarray
    times: tuple[datetime, ...]

    @property
    def step(self) -> timedelta:
        return self.times[1] - self.times[0] if len(self.times) > 1 else timedelta(hours=1)


def read_series(path: Path) -> SeriesTable:
    """A CSV file with the time first.

    Raises:
        InputError: no such file, text in a column of numbers, times that are unsorted, repeated or
            of unequal distance, or a column that is constant or has only gaps.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        reader = csv.reader(file)
        header = next(reader, None)
        rows = [row for row in reader if row]
    if header is None or len(header) < 2 or len(rows) < 2:
        raise InputError(f"{path} needs a time column, a column of numbers and two or more rows")
    columns = tuple(header[1:])
    values = np.empty((len(rows), len(columns)), np.float64)
    for number, row in enumerate(rows, 2):
        if len(row) != len(header):
            raise InputError(
                f"{path}, line {number} has {len(row)} cells, the header {len(header)}"
            )
        for index, cell in enumerate(row[1:]):
            values[number - 2, index] = _number(cell, path, number, columns[index])
    times = tuple(_time(row[0], path, number) for number, row in enumerate(rows, 2))
    _check_times(times, path)
    for name, column in zip(columns, values.T, strict=True):
        present = column[~np.isnan(column)]
        if not len(present):
            raise InputError(f"{path} has only gaps in the column {name}")
        if present.min() == present.max():
            value = f"every value is {present[0]:g}"
            raise InputError(f"{path} is constant in the column {name}: {value}")
    return SeriesTable(columns, *fill_gaps(values), times)


def fill_gaps(values_TM: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(float32 values with gaps interpolated, where the gaps were); ends repeat the nearest."""
    missing = np.isnan(values_TM)
    filled = values_TM.astype(np.float64).copy()
    position = np.arange(len(filled))
    for column in range(filled.shape[1]):
        gap = missing[:, column]
        if gap.any():
            filled[gap, column] = np.interp(position[gap], position[~gap], filled[~gap, column])
    return filled.astype(np.float32), missing


def _number(cell: str, path: Path, line: int, column: str) -> float:
    cell = cell.strip()
    if cell.lower() in MISSING:
        return float("nan")
    try:
        value = float(cell)
    except ValueError:
        where = f"{path}, line {line}"
        raise InputError(f"{where}: {cell!r} in the column {column} is not a number") from None
    if np.isinf(value):
        raise InputError(f"{path}, line {line}: the column {column} is infinite")
    return value


def _time(cell: str, path: Path, line: int) -> datetime:
    for form in FORMATS:
        try:
            return datetime.strptime(cell.strip(), form)
        except ValueError:
            continue
    raise InputError(f"{path}, line {line}: {cell!r} is no time such as 2016-07-01 00:00:00")


def _check_times(times: Sequence[datetime], path: Path) -> None:
    step = times[1] - times[0]
    for number, (before, after) in enumerate(pairwise(times), 3):
        if after == before:
            raise InputError(f"{path}, line {number}: the time {after} occurs twice")
        if after < before:
            raise InputError(f"{path}, line {number}: the time {after} is before {before}; sort it")
        if after - before != step:
            raise InputError(
                f"{path}, line {number}: {after} is {after - before} after the row before, the "
                f"others are {step} apart; insert the missing rows with empty cells"
            )


def time_marks(times: Sequence[datetime]) -> np.ndarray:
    """(T, 4) in [-0.5, 0.5]: hour, weekday, day of the month, day of the year."""
    rows = [
        (
            (t.hour + t.minute / 60) / 23 - 0.5,
            t.weekday() / 6 - 0.5,
            (t.day - 1) / 30 - 0.5,
            (t.timetuple().tm_yday - 1) / 365 - 0.5,
        )
        for t in times
    ]
    return np.array(rows, np.float32)


class WindowSamples(Samples):
    """Windows `{"x": (L, M), "y": (P, M), "missing": (P, M), "marks": (L + P, 4)}` of a table.

    Args:
        values_TM, missing_TM, marks_T4: of the table; scaled as the network gets it.
        first, last: rows of the outputs are within [first, last); inputs may start before.
        steps, horizon: L and P.
        stride: rows between windows.
    """

    def __init__(
        self,
        values_TM: np.ndarray,
        missing_TM: np.ndarray,
        marks_T4: np.ndarray,
        first: int,
        last: int,
        steps: int,
        horizon: int,
        stride: int = 1,
    ) -> None:
        self.values, self.missing, self.marks = values_TM, missing_TM, marks_T4
        self.steps, self.horizon = steps, horizon
        starts = range(max(first, steps), last - horizon + 1, stride)
        if not starts:
            raise InputError(
                f"{last - first} rows are too few for a window of {steps} input and {horizon} "
                "predicted steps"
            )
        self.starts = starts

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, index: int) -> Sample:
        at = self.starts[index]
        past, future = slice(at - self.steps, at), slice(at, at + self.horizon)
        return {
            "x": self.values[past],
            "y": self.values[future],
            "missing": self.missing[future],
            "marks": self.marks[at - self.steps : at + self.horizon],
        }

    def names(self) -> Iterable[str]:
        # The values at the start identify a window as long as the file does not change there.
        return (f"{at}:{self.values[at].sum():.6g}" for at in self.starts)


@dataclass(frozen=True)
class SeriesData:
    """A table with its borders.

    Attributes:
        name: opens the same data again from any working directory.
        table: see `SeriesTable`.
        borders: rows where training ends, validation ends and testing ends.
    """

    name: str
    table: SeriesTable
    borders: tuple[int, int, int]


def describe_series(data: str) -> str | None:
    """What there is at `data` for forecasting, in words; None if nothing is."""
    path = _file(Path(os.path.expanduser(data)))
    if path is None:
        return None
    with open(path, newline="", encoding="utf-8-sig", errors="replace") as file:
        header, first = next(csv.reader(file), []), next(csv.reader(file), [])
    if len(header) < 2 or len(first) != len(header):
        return None
    try:
        _time(first[0], path, 2)
        [_number(cell, path, 2, "") for cell in first[1:]]
    except InputError:
        return None
    return f"a table of {len(header) - 1} series"


def open_series(data: str | Path, val_share: float = 0.1, test_share: float = 0.0) -> SeriesData:
    """A CSV file, or a folder that holds one.

    ETT files have the usual borders (12, 4 and 4 months). Of others the last `test_share` is for
    testing and the `val_share` before it for validation.

    Raises:
        InputError: no such data, or as `read_series`.
    """
    given = Path(os.path.expanduser(data))
    path = _file(given)
    if path is None:
        raise InputError(f"{data} is no CSV file of times and numbers, and no folder of one")
    table = read_series(path)
    rows = len(table.values_TM)
    if path.stem.startswith("ETTh") and rows >= sum(ETT_HOURS):
        first, second, third = ETT_HOURS
        borders = (first, first + second, first + second + third)
        return SeriesData(str(path.resolve()), table, borders)
    test = round(rows * (1 - test_share))
    val = test - round(rows * val_share)
    return SeriesData(str(path.resolve()), table, (val, test, rows))


def _file(path: Path) -> Path | None:
    if path.is_dir():
        found = sorted(path.glob("*.csv"))
        return found[0] if len(found) == 1 else None
    return path if path.suffix.lower() == ".csv" and path.is_file() else None


def load_array(path: Path) -> np.ndarray:
    """A `.npy` array of numbers.

    Raises:
        InputError: no such file, or one that would run code to be read (a pickle).
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    try:
        return np.load(path, allow_pickle=False)
    except ValueError as error:
        if "allow_pickle" in str(error) or "pickle" in str(error).lower():
            raise InputError(
                f"{path} holds pickled objects, which could run code; save its numbers anew with "
                "np.save(path, array.astype('float32'))"
            ) from None
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged: {reason}") from None
    except Exception as error:  # numpy's parser of the header fails in any way
        reason = str(error).partition("\n")[0]
        raise InputError(f"{path} is damaged: {reason}") from None
