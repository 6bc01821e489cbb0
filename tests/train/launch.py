"""Several processes of one training, as torchrun would start them; also what each of them runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def start(ranks: int, words: list[str]) -> list[subprocess.Popen]:
    """`python WORDS` as so many processes of one group, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    group = {"WORLD_SIZE": ranks, "LOCAL_WORLD_SIZE": ranks, "MASTER_PORT": port}
    group |= {"MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": 1}
    return [
        subprocess.Popen(
            [sys.executable, *map(str, words)],
            env=os.environ
            | {key: str(value) for key, value in group.items()}
            | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(ranks)
    ]


def finish(processes: list[subprocess.Popen], seconds: float = 300) -> list[tuple[int, str, str]]:
    """Exit code, stdout and stderr of each; after `seconds` all are killed and the test fails."""
    try:
        said = [process.communicate(timeout=seconds) for process in processes]
    finally:
        for process in processes:
            process.kill()
    return [(p.returncode, *words) for p, words in zip(processes, said, strict=True)]


def fits(ranks: int, images: Path, runs: list[dict]) -> None:
    """Train one run after the other in float64 on so many processes.

    Each is the arguments of `fit`, and `stop`: (epoch, update) in which the last process gets
    SIGTERM.
    """
    done = finish(start(ranks, [HERE / "launch.py", images, json.dumps(runs)]))
    for code, _, complaint in done:
        assert code == 0, complaint


def main(images: str, runs: str) -> None:
    import torch
    from rich.console import Console

    from seewide.recipes import Recipe
    from seewide.train import Terminated, fit, step

    torch.set_default_dtype(torch.float64)
    original = step.Trainer.step
    for run in json.loads(runs):
        stop = run.pop("stop", None)

        def maybe(self, epoch, number, batches, stopping, stop=stop):
            if stop == [epoch, number] and self.processes.rank == self.processes.ranks - 1:
                os.kill(os.getpid(), signal.SIGTERM)
            return original(self, epoch, number, batches, stopping)

        step.Trainer.step = maybe
        recipe = Recipe(**run.pop("recipe"))
        try:
            fit(data=images, recipe=recipe, workers=0, console=Console(quiet=True), **run)
        except Terminated:
            assert stop


if __name__ == "__main__":
    main(*sys.argv[1:])
