"""Raw signals to maps (N, C, H, W) for image networks: audio, video, point clouds, time series."""

from .audio import AudioClassifier, NoiseAndRoll, SpecAugment, mix_waves
from .log_mel import LogMel
from .points import PointClassifier, PointsToViews
from .series import Forecaster, SeriesToMap
from .video import FramesToMap, VideoClassifier

__all__ = [
    "AudioClassifier",
    "Forecaster",
    "FramesToMap",
    "LogMel",
    "NoiseAndRoll",
    "PointClassifier",
    "PointsToViews",
    "SeriesToMap",
    "SpecAugment",
    "VideoClassifier",
    "mix_waves",
]
