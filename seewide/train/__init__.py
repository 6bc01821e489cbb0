"""Training: `fit` a classifier into a run folder, `resume` it, `evaluate` it, `load_run` it."""

from seewide.train.checkpoint import RunInfo, load_run
from seewide.train.evaluate import Evaluation, evaluate
from seewide.train.loop import Interrupted, RunResult
from seewide.train.start import fit, resume

__all__ = [
    "Evaluation",
    "Interrupted",
    "RunInfo",
    "RunResult",
    "evaluate",
    "fit",
    "load_run",
    "resume",
]
