"""Object detection, instance and semantic segmentation on any timm backbone.

`create_detector` and `create_segmenter` build the systems of the papers by name; the parts are
plain modules whose keys are those of mmdetection 2 and mmsegmentation 0, so that the authors'
checkpoints load.
"""

from .backbone import FeaturePyramid, build_backbone
from .checkpoints import load_weights, to_authors
from .detectors import Detector, OneStageDetector, TwoStageDetector
from .images import BatchImages, ImageBatch
from .losses import LossTerm, means
from .segmenters import Segmenter, average_views, sliding_window, whole_image
from .systems import create_detector, create_segmenter, list_detectors, list_segmenters

__all__ = [
    "BatchImages",
    "Detector",
    "FeaturePyramid",
    "ImageBatch",
    "LossTerm",
    "OneStageDetector",
    "Segmenter",
    "TwoStageDetector",
    "average_views",
    "build_backbone",
    "create_detector",
    "create_segmenter",
    "list_detectors",
    "list_segmenters",
    "load_weights",
    "means",
    "sliding_window",
    "to_authors",
    "whole_image",
]
