"""Choice of the backend that computes an operator.

An operator is an ordered list of backends. Each answers two questions about the arguments of a
call, and nothing else decides:

* `cannot(...)`: None, or a sentence that says why the result would be wrong or impossible here.
* `prefer(...)`: whether it is the faster choice here.

By default the first backend that can run and is preferred runs, or the first that can run if none
is preferred. `use_backend(name)` forces a backend wherever it can run; where it cannot, its
sentence is the error. The choice is made anew at every call, and `explain` prints all answers.

    with seewide.use_backend("reference"): ...      # or SEEWIDE_BACKEND=reference
    seewide.explain(depthwise_conv2d, x, weight)    # prints each backend's answer

To add an operator: write its backends, create one `Operator` with the name of the public function,
and call that object with positional arguments, in the order of the function's signature.
"""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..errors import InputError, unknown
from ..kernels._plain import in_transform as in_transform  # for layers


@dataclass(frozen=True)
class Backend:
    """One way to compute an operator. All functions take the operator's arguments, in its order.

    Args:
        name: as `use_backend` takes it.
        run: computes the result.
        cannot: None, or one sentence that says why `run` would be wrong or impossible. It may not
            format sizes: while compiling these can be symbols.
        prefer: whether `run` is the faster choice; called only where it can run.
        slower: one sentence that says why `prefer` is False; called by `explain` only, so that it
            may show sizes and estimates.
        plan: how `run` would compute the result; called by `explain` only.
    """

    name: str
    run: Callable[..., torch.Tensor]
    cannot: Callable[..., str | None] = lambda *args: None
    prefer: Callable[..., bool] = lambda *args: True
    slower: Callable[..., str] = lambda *args: "another backend is faster"
    plan: Callable[..., str] = lambda *args: ""


def reference_backend(run: Callable[..., torch.Tensor]) -> Backend:
    """The backend "reference": the operator's definition, which can always run and is slow."""
    return Backend(
        "reference", run, prefer=lambda *args: False, slower=lambda *args: "the plain definition"
    )


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
        """The backend that runs for these arguments.

        Raises:
            InputError: the forced backend cannot run, does not exist, or no backend can run.
        """
        forced = forced_backend()
        if forced is not None:
            for backend in self.backends:
                if backend.name == forced:
                    reason = backend.cannot(*args)
                    if reason is None:
                        return backend
                    raise InputError(f"backend {forced!r} cannot run {self.name}: {reason}")
            if forced not in known_backends():
                raise unknown("backend", forced, known_backends())
        slow = None
        for backend in self.backends:
            if backend.cannot(*args) is None:
                if backend.prefer(*args):
                    return backend
                if slow is None:
                    slow = backend
        if slow is None:
            reasons = "; ".join(f"{b.name}: {b.cannot(*args)}" for b in self.backends)
            raise InputError(f"no backend can run {self.name} ({reasons})")
        return slow

    def table(self, *args) -> list[tuple[str, str]]:
        """(backend, "chosen" | "could run" | why it cannot) for each backend."""
        chosen = self.choose(*args)
        rows = []
        for backend in self.backends:
            verdict = backend.cannot(*args)
            if verdict is None:
                verdict = "chosen" if backend is chosen else "could run"
                plan = backend.plan(*args)
                verdict += f": {plan}" if plan else ""
                if backend is not chosen and not backend.prefer(*args):
                    verdict += f"; {backend.slower(*args)}"
            rows.append((backend.name, verdict))
        return rows


def known_backends() -> list[str]:
    """Names that `use_backend` and SEEWIDE_BACKEND take."""
    return sorted({b.name for operator in Operator.registry.values() for b in operator.backends})


# Names of the `use_backend` blocks that are open in this context, outermost first. A context
# variable: threads and asyncio tasks do not see each other's.
_open_blocks: ContextVar[tuple[str | None, ...]] = ContextVar("seewide_backend", default=())
_FROM_ENVIRONMENT = os.environ.get("SEEWIDE_BACKEND") or None

# torch.compile must recompile when the forced backend changes. From 2.14 on it guards on context
# variables; earlier versions cannot read them, and read this copy of the last change instead.
_COMPILER_READS_CONTEXT = tuple(map(int, torch.__version__.split(".")[:2])) >= (2, 14)
_last_change: list[tuple[str | None, ...]] = [()]


def forced_backend() -> str | None:
    """The backend of the innermost `use_backend` block, else SEEWIDE_BACKEND, else None."""
    if _COMPILER_READS_CONTEXT or not torch.compiler.is_compiling():
        blocks = _open_blocks.get()
    else:
        blocks = _last_change[0]
    return blocks[-1] if blocks else _FROM_ENVIRONMENT


def _set_blocks(blocks: tuple[str | None, ...]) -> None:
    _open_blocks.set(blocks)
    _last_change[0] = blocks


class use_backend:
    """Context manager: operators that have a backend of this name use it, or raise why they cannot.

    Operators without such a backend choose as usual. `use_backend(None)` cancels an outer choice.
    Holds for the current thread (the current `contextvars` context) and can be nested and reused.

    Raises:
        InputError: no operator has a backend of that name.
    """

    def __init__(self, name: str | None):
        if name is not None and name not in known_backends():
            raise unknown("backend", name, known_backends())
        self.name = name

    def __enter__(self):
        _set_blocks((*_open_blocks.get(), self.name))

    def __exit__(self, *exception):
        _set_blocks(_open_blocks.get()[:-1])


def autocasts(device: str) -> bool:
    """Whether autocast is on for this device type; the meta device has none."""
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
    """Print which backend `op(*args, **kwargs)` would use, and why it would not use the others.

    Raises:
        InputError: `op` is not an operator of seewide.
    """
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
