"""seewide: large-kernel vision for PyTorch.

Importing it registers the networks with timm; `timm.create_model("unireplknet_t")` then works.
"""

from timm import create_model

from . import dense, models, ops
from ._version import __version__
from .dense import create_detector, create_segmenter
from .errors import InputError
from .models import list_models, load_checkpoint
from .ops import explain, use_backend
from .reparam import fuse

__all__ = [
    "InputError",
    "__version__",
    "create_detector",
    "create_model",
    "create_segmenter",
    "dense",
    "explain",
    "fuse",
    "list_models",
    "load_checkpoint",
    "models",
    "ops",
    "use_backend",
]
