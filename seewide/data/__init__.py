"""Samples and how they are read: one file per kind of source, then order, loading and batches.

Every source is a `Samples`: a sequence of dicts that are read when they are needed. Shuffling,
resuming, distribution among processes and the handling of broken samples are written once.
"""

from .broken import BROKEN, SHARE, BrokenSamples
from .classification import (
    ImageClasses,
    classification_to_evaluate,
    describe_classification,
    open_classification,
)
from .images import ImageSamples, StoredImage, read_image, verify_image
from .loader import Loader, SampleReader, batches, make_loader
from .order import Order
from .samples import Sample, Samples, Subset, check_samples, fingerprint

__all__ = [
    "BROKEN", "SHARE", "BrokenSamples", "ImageClasses", "ImageSamples", "Loader", "Order",
    "Sample", "SampleReader", "Samples", "StoredImage", "Subset", "batches", "check_samples",
    "classification_to_evaluate", "describe_classification", "fingerprint", "make_loader",
    "open_classification", "read_image", "verify_image",
]  # fmt: skip
