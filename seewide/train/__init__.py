"""Training: `fit` a model into a run folder, `resume` it, `evaluate` it, `predict` with it."""

from seewide.train.checkpoint import RunConfig, WeightsInfo, load_run
from seewide.train.evaluate import Evaluation, evaluate
from seewide.train.loop import RunResult
from seewide.train.predict import Prediction, Predictor, predict
from seewide.train.run import fit, resume
from seewide.train.runtime import Runtime
from seewide.train.signals import Interrupted, Terminated

__all__ = [
    "Evaluation",
    "Interrupted",
    "Prediction",
    "Predictor",
    "RunConfig",
    "RunResult",
    "Runtime",
    "Terminated",
    "WeightsInfo",
    "evaluate",
    "fit",
    "load_run",
    "predict",
    "resume",
]
