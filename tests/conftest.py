"""What all tests share."""

import io
import os
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest

# Two test processes on two cores: one thread each, and in the processes that they start.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# Without a CUDA device Triton's kernels run in its interpreter (tests/kernels). Triton reads this
# while it is imported, which test modules of other folders may do first.
if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def seeded():
    """Each test draws the same numbers, whichever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def poisoned_memory():
    """Uninitialised memory is NaN: a kernel that reads what nobody wrote shows it."""
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture(scope="session")
def parity() -> Path:
    """Folder of figures computed by the authors' own code, if this machine has it."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("the authors' figures are not on this machine (../shared/parity)")
    return folder


@dataclass(frozen=True)
class CommandResult:
    """What a command line printed, and its exit code."""

    exit_code: int
    stdout: str
    stderr: str

    @property
    def output(self) -> str:
        return self.stdout + self.stderr


@pytest.fixture(scope="session")
def command() -> Callable[..., CommandResult]:
    """`command("train", model, "--epochs", 2)`: the command line `seewide` in this process."""

    def call(*words: object) -> CommandResult:
        from seewide.cli import main

        out, err = io.StringIO(), io.StringIO()
        with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as stop:
            main([str(word) for word in words])
        return CommandResult(stop.value.code, out.getvalue(), err.getvalue())

    return call
