"""Registers the networks with timm at the first import of timm or of a module that needs torch."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

# What `seewide --help` needs; none of it imports torch.
LIGHT = {"_version", "cli", "console", "errors", "options", "recipes", "__main__"}


def register_with_timm() -> None:
    """Have the next import of timm, or of a module that is not light, import `seewide.models`."""
    sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds nothing itself; acts once and is gone.

    A search for timm alone is no import: transformers asks in this way whether it is installed.
    """

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package == "seewide" and rest.partition(".")[0] not in LIGHT:
            sys.meta_path.remove(self)
            if rest != "models":
                importlib.import_module("seewide.models")  # before a half-imported module needs it
        elif name == "timm":
            sys.meta_path.remove(self)  # or it would find itself
            try:
                spec = importlib.util.find_spec(name)
            finally:
                sys.meta_path.insert(0, self)
            if spec is not None and spec.loader is not None:
                spec.loader = _TimmLoader(spec.loader, self)
            return spec
        return None


class _TimmLoader(Loader):
    """timm's own loader, and the import of our networks after it."""

    def __init__(self, loader: Loader, finder: MetaPathFinder) -> None:
        self.loader, self.finder = loader, finder

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        # Resources and inspection go through the loader that timm is known by.
        module.__loader__ = module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        with contextlib.suppress(ValueError):
            sys.meta_path.remove(self.finder)
        importlib.import_module("seewide.models")
