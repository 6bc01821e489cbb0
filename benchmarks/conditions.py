"""Under which conditions a figure was measured; every result file begins with them."""

from __future__ import annotations

import csv
import os
import platform
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import torch
from rich.console import Console

import seewide
from seewide.console import print_facts
from seewide.errors import InputError, unknown, write_atomically
from seewide.kernels.cpu.depthwise import AVX512

RESULTS = Path(__file__).parent / "results"
FIGURES = Path(__file__).parents[1] / "docs" / "figures"
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Settings:
    """What the command line asks for."""

    quick: bool = False
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    compiled: bool = False  # also measure under torch.compile
    patience: float = 1.5  # seconds for each form of a case, its rounds together
    times: int = 1  # as many rounds, and seconds

    @classmethod
    def of(
        cls, quick: bool, device: str, dtype: str, threads: int | None, compiled: bool
    ) -> Settings:
        """Checked; sets the number of threads.

        Raises:
            InputError: an unknown dtype, a device that is not there, or no threads.
        """
        if dtype not in DTYPES:
            raise unknown("dtype", dtype, DTYPES)
        if device not in ("cpu", "cuda"):
            raise InputError(f"device must be cpu, or cuda where there is one, got {device!r}")
        if device == "cuda" and not torch.cuda.is_available():
            raise InputError("device is 'cuda', and PyTorch finds no CUDA device here")
        if threads is not None:
            if threads < 1:
                raise InputError(f"threads must be at least 1, got {threads}")
            torch.set_num_threads(threads)
        return cls(quick, device, DTYPES[dtype], compiled)

    @property
    def rounds(self) -> int:
        return self.times * (3 if self.quick else 9)

    @property
    def seconds(self) -> float:
        return self.times * (0.2 if self.quick else self.patience)


def conditions(settings: Settings) -> dict[str, str]:
    """Machine, libraries and settings, in words."""
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    vectors = "AVX-512" if AVX512 else torch.backends.cpu.get_cpu_capability()
    if isa:
        vectors = f"oneDNN limited to {isa}"
    found = {
        "cpu": f"{_processor()}, {vectors}, {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
        "seewide": f"{seewide.__version__} {_revision()}".strip(),
        "date": date.today().isoformat(),
        "load": f"{os.getloadavg()[0]:.1f} processes ready to run on {os.cpu_count()} cores",
    }
    if settings.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def describe(settings: Settings, console: Console) -> None:
    """Print the conditions."""
    print_facts(console, **conditions(settings))


def write_csv(
    name: str, header: Sequence[str], rows: Iterable[Sequence[object]], settings: Settings
) -> Path:
    """`results/<name>-<device>-torch<version>-<dtype>.csv`, conditions first, as comments."""

    version = torch.__version__.partition("+")[0]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower()
    device = f"{settings.device}-{limit}" if limit else settings.device
    dtype = str(settings.dtype).removeprefix("torch.")
    name = f"{name}-{device}-torch{version}-{dtype}"
    return write_rows(name, conditions(settings), header, rows)


def write_rows(
    name: str, conditions: Mapping[str, str], header: Sequence[str], rows: Iterable[Sequence]
) -> Path:
    """`results/<name>.csv`, conditions first, as comments."""

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            for key, value in conditions.items():
                file.write(f"# {key}: {value}\n")
            csv.writer(file, lineterminator="\n").writerows([header, *rows])

    return write_atomically(RESULTS / f"{name}.csv", write)


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a result file, by column."""
    with path.open(newline="") as file:
        return list(csv.DictReader(line for line in file if not line.startswith("#")))


def _revision() -> str:
    """Of the checkout, and whether it has changes; nothing outside a checkout."""
    call = ["git", "describe", "--always", "--dirty"]
    found = subprocess.run(call, cwd=RESULTS.parent, capture_output=True, text=True, check=False)
    return found.stdout.strip()


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
