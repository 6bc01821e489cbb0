"""A Python function as a torch operator, in all versions of PyTorch that are supported."""

import inspect
from collections.abc import Callable

import torch

# The compiler must pass tensors with their original strides. PyTorch 2.7 always does and has no
# `tags` argument; later versions need the tag.
TAKES_TAGS = "tags" in inspect.signature(torch.library.custom_op).parameters
KEEP_STRIDES = {"tags": (torch.Tag.needs_fixed_stride_order,)} if TAKES_TAGS else {}


def custom_op(
    name: str, schema: str, fake: Callable, function: Callable
) -> torch.library.CustomOpDef:
    """The operator `seewide::<name>`.

    Args:
        name: of the operator.
        schema: its arguments and results, as `torch.library` writes them.
        fake: the same arguments to empty results of the right shapes and strides.
        function: what it computes; changes none of its arguments.
    """
    operator = torch.library.custom_op(
        f"seewide::{name}", function, mutates_args=(), schema=schema, **KEEP_STRIDES
    )
    operator.register_fake(fake)
    return operator
