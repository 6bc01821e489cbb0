"""Where only plain torch operators may run: no custom operators, autograd functions or `out=`."""

import torch
from torch.autograd import forward_ad

_peek = torch._C._functorch.peek_interpreter_stack


@torch.compiler.assume_constant_result  # torch.compile guards on the functorch stack by itself
def in_transform() -> bool:
    """Whether a torch.func transform (vmap, grad, jvp, ...) or forward-mode AD is active."""
    return _peek() is not None or forward_ad._current_level >= 0


def needs_plain_operators() -> str | None:
    """None, or a sentence: why a call may consist of plain, differentiable torch operators only."""
    if torch.compiler.is_exporting():
        return "an exported program holds plain operators, which every runtime implements"
    if torch.jit.is_tracing():
        return "a TorchScript trace holds plain operators, which run without seewide"
    if in_transform():
        return "torch.func transforms and forward-mode derivatives need plain operators"
    return None
