"""Raw signals to maps (N, C, H, W) for image networks: audio, video, point clouds, time series.

Also the fusion of two modalities, and referring segmentation with its scores.
"""

from .audio import AudioClassifier, NoiseAndRoll, SpecAugment, mix_waves
from .davis import evaluate_davis
from .fusion import Fusion
from .log_mel import LogMel
from .points import PointClassifier, PointsToViews
from .referring import ReferringSegmenter, RefVOSHead
from .series import Forecaster, SeriesToMap
from .video import FramesToMap, VideoClassifier

__all__ = [
    "AudioClassifier",
    "Forecaster",
    "FramesToMap",
    "Fusion",
    "LogMel",
    "NoiseAndRoll",
    "PointClassifier",
    "PointsToViews",
    "RefVOSHead",
    "ReferringSegmenter",
    "SeriesToMap",
    "SpecAugment",
    "VideoClassifier",
    "evaluate_davis",
    "mix_waves",
]
