"""seewide: large-kernel vision for PyTorch.

Importing it registers the networks with timm; `timm.create_model("unireplknet_t")` then works. The
import itself loads neither torch nor timm: where they are not loaded yet, the networks are
registered as soon as timm is, so that `seewide --help` answers at once.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

from seewide._version import __version__
from seewide.errors import InputError

if TYPE_CHECKING:
    from timm import create_model

    from seewide import dense, models, ops
    from seewide.dense import create_detector, create_segmenter
    from seewide.hub import from_pretrained, push_to_hub, save_pretrained
    from seewide.inference.optimize import optimize
    from seewide.models import list_models, load_checkpoint
    from seewide.ops import explain, use_backend
    from seewide.reparam import fuse

__all__ = [
    "InputError",
    "__version__",
    "create_detector",
    "create_model",
    "create_segmenter",
    "dense",
    "explain",
    "from_pretrained",
    "fuse",
    "list_models",
    "load_checkpoint",
    "models",
    "ops",
    "optimize",
    "push_to_hub",
    "save_pretrained",
    "use_backend",
]

_HOME = {
    "create_detector": "seewide.dense",
    "create_model": "timm",
    "create_segmenter": "seewide.dense",
    "dense": "",
    "explain": "seewide.ops",
    "from_pretrained": "seewide.hub",
    "fuse": "seewide.reparam",
    "list_models": "seewide.models",
    "load_checkpoint": "seewide.models",
    "models": "",
    "ops": "",
    "optimize": "seewide.inference.optimize",
    "push_to_hub": "seewide.hub",
    "save_pretrained": "seewide.hub",
    "use_backend": "seewide.ops",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = _HOME[name]
    value = getattr(import_module(home), name) if home else import_module(f"{__name__}.{name}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME})


if "torch" in sys.modules or "timm" in sys.modules:
    from seewide import dense, models, ops
else:
    from seewide._registration import register_with_timm

    register_with_timm()
