"""Under which conditions a figure was measured; every result file begins with them."""

from __future__ import annotations

import csv
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import date
from pathlib import Path

import torch

import seewide
from seewide.errors import write_atomically
from seewide.kernels.cpu.depthwise import AVX512

RESULTS = Path(__file__).parent / "results"


def conditions() -> dict[str, str]:
    """Machine, libraries and settings, in words."""
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    vectors = "AVX-512" if AVX512 else torch.backends.cpu.get_cpu_capability()
    if isa:
        vectors = f"oneDNN limited to {isa}"
    return {
        "cpu": f"{_processor()}, {vectors}, {torch.get_num_threads()} thread(s)",
        "torch": torch.__version__,
        "seewide": seewide.__version__,
        "date": date.today().isoformat(),
    }


def write_csv(name: str, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    """`results/<name>-<device>-torch<version>-<dtype>.csv`, conditions first, as comments."""

    def write(path: Path) -> None:
        with path.open("w", newline="") as file:
            for key, value in conditions().items():
                file.write(f"# {key}: {value}\n")
            csv.writer(file, lineterminator="\n").writerows([header, *rows])

    version = torch.__version__.partition("+")[0]
    limit = os.environ.get("ONEDNN_MAX_CPU_ISA", "").lower()
    device = f"cpu-{limit}" if limit else "cpu"
    return write_atomically(RESULTS / f"{name}-{device}-torch{version}-float32.csv", write)


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
