"""A model as an object of study for a while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn


@contextlib.contextmanager
def studied(model: nn.Module) -> Iterator[None]:
    """In evaluation mode inside, its parameters needing no gradients; as it was afterwards."""
    modes = {module: module.training for module in model.modules()}
    needs = {parameter: parameter.requires_grad for parameter in model.parameters()}
    model.eval().requires_grad_(False)
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
        for parameter, required in needs.items():
            parameter.requires_grad_(required)
