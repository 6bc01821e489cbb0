"""Training: `fit` a classifier into a run folder, `resume` it, `evaluate` it, `load_run` it."""

from seewide.train.checkpoint import RunInfo, load_run
from seewide.train.evaluate import Evaluation, evaluate
from seewide.train.loop import RunResult
from seewide.train.start import fit, resume
from seewide.train.surviving import Interrupted, Terminated

__all__ = [
    "Evaluation",
    "Interrupted",
    "RunInfo",
    "RunResult",
    "Terminated",
    "evaluate",
    "fit",
    "load_run",
    "resume",
]
