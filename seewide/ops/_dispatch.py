"""Choice of backend, out loud.

An operator is an ordered list of backends. Each answers `why_not(...)` with None or a sentence;
the first None wins, at every call, from the arguments alone. Nothing is chosen at import and
nothing falls back in silence: a backend that was asked for and cannot run raises its sentence.

    with seewide.use_backend("reference"): ...      # or SEEWIDE_BACKEND=reference
    seewide.explain(depthwise_conv2d, x, weight)    # the table of answers
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import InputError, unknown


@dataclass(frozen=True)
class Backend:
    """One way to compute an operator. All members take the operator's arguments, in its order."""

    name: str
    run: Callable[..., torch.Tensor]
    why_not: Callable[..., str | None]
    plan: Callable[..., str] = lambda *args: ""  # what it would do for these arguments, in words
    behind: str = ""  # why it stands behind others that can run, in words


class Operator:
    """A name and its backends, fastest first."""

    registry: ClassVar[dict[str, Operator]] = {}

    def __init__(self, name: str, *backends: Backend):
        self.name = name
        self.backends = backends
        Operator.registry[name] = self

    def __call__(self, *args):
        return self.choose(*args).run(*args)

    def choose(self, *args) -> Backend:
        """The backend that runs for these arguments; raises InputError if none can."""
        asked = _asked[0]
        if asked:
            for backend in self.backends:
                if backend.name == asked:
                    reason = backend.why_not(*args)
                    if reason is None:
                        return backend
                    raise InputError(f"backend {asked!r} cannot run {self.name}: {reason}")
            if asked not in known_backends():
                raise unknown("backend", asked, known_backends())
        for backend in self.backends:
            if backend.why_not(*args) is None:
                return backend
        reasons = "; ".join(f"{b.name}: {b.why_not(*args)}" for b in self.backends)
        raise InputError(f"no backend can run {self.name} ({reasons})")

    def table(self, *args) -> list[tuple[str, str]]:
        """(backend, "chosen" | "could run" | its reason) for each backend."""
        chosen = self.choose(*args)
        rows = []
        for backend in self.backends:
            verdict = backend.why_not(*args)
            if verdict is None:
                verdict = "chosen" if backend is chosen else "could run"
                plan = backend.plan(*args)
                verdict += f": {plan}" if plan else ""
                if backend.behind and backend is not chosen:
                    verdict += f"; {backend.behind}"
            rows.append((backend.name, verdict))
        return rows


def known_backends() -> list[str]:
    """Names that `use_backend` and SEEWIDE_BACKEND take."""
    return sorted({b.name for operator in Operator.registry.values() for b in operator.backends})


# The asked-for backend; None: every operator chooses for itself. A list, so that torch.compile
# guards on its content. Process-wide, as torch's own backend flags are.
_asked: list[str | None] = [os.environ.get("SEEWIDE_BACKEND") or None]


class use_backend:
    """Context manager: operators that have a backend of this name use it, or say why they cannot.

    Operators without such a backend choose as usual. `use_backend(None)` lifts an outer choice.

    Raises:
        InputError: no operator has a backend of that name.
    """

    def __init__(self, name: str | None):
        if name is not None and name not in known_backends():
            raise unknown("backend", name, known_backends())
        self.name = name

    def __enter__(self):
        self.outer = _asked[0]
        _asked[0] = self.name

    def __exit__(self, *exception):
        _asked[0] = self.outer


def autocasts(device: str) -> bool:
    """Whether autocast is on for this device type; meta has none to ask."""
    return device != "meta" and torch.is_autocast_enabled(device)


def run_without_autocast(operator: Operator, *args):
    """`operator(*args)`; under autocast, with its tensors cast as autocast casts a convolution's.

    Autocast itself is off inside, so that a backend computes in the precision it decided on.
    """
    device = args[0].device.type
    if not autocasts(device):
        return operator(*args)
    dtype = torch.get_autocast_dtype(device)
    with torch.autocast(device, enabled=False):
        return operator(*(_autocast(arg, dtype) for arg in args))


def _autocast(arg, dtype: torch.dtype):
    floating = isinstance(arg, torch.Tensor) and arg.is_floating_point()
    return arg.to(dtype) if floating and arg.dtype != torch.float64 else arg


def explain(op: Callable, *args, **kwargs) -> None:
    """Print which backend `op(*args, **kwargs)` would use, and why the others would not."""
    operator = Operator.registry.get(getattr(op, "__name__", ""))
    if operator is None:
        raise unknown("operator", getattr(op, "__name__", str(op)), Operator.registry)
    bound = inspect.signature(op).bind(*args, **kwargs)
    bound.apply_defaults()
    rows = operator.table(*bound.arguments.values())
    width = max(len(name) for name, _ in rows)
    print(f"{operator.name}:")
    for name, verdict in rows:
        print(f"  {name:<{width}}  {verdict}")
