"""Functions that a compiled graph calls as one operator.

Left to itself, Inductor gives the parts of a fast path other memory layouts than those that reach
the fast library kernels (compiled, fused unireplknet_a ran at 0.7 times its eager speed), and
compiles the 80 small calls of a peripheral convolution one by one. While compiling,
these functions are therefore custom operators that receive their inputs with unchanged strides.
"""

import functools
from collections.abc import Callable

import torch
from torch import Tensor

from .._custom_op import custom_op


def opaque(name: str, schema: str, fake: Callable[..., Tensor]) -> Callable[[Callable], Callable]:
    """Decorator: the operator `seewide::<name>` while compiling, the function itself otherwise.

    Args:
        name: of the operator.
        schema: its arguments and result, as `torch.library` writes them.
        fake: the same arguments to an empty result of the right shape and strides.
    """

    def decorate(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        operator = custom_op(name, schema, fake, function)

        @functools.wraps(function)
        def call(*args) -> Tensor:
            return operator(*args) if torch.compiler.is_compiling() else function(*args)

        return call

    return decorate
