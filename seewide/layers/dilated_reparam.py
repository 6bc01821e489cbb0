"""Dilated Reparam Block: a large kernel, trained beside small dilated ones.

UniRepLKNet (arXiv 2311.15599), section 3.1: a dilated small kernel equals a sparse large one, so
parallel dilated branches, each with its own batch norm, can be fused into the large kernel.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from ..errors import InputError, unknown
from ..reparam import fold_batch_norm, fold_parallel, undilate
from .depthwise import DepthwiseConv2d

# The branches (kernel size, dilation) that accompany each large kernel, as in the authors' code
# (the paper's first version printed others, and its authors say to follow the code).
BRANCHES: dict[int, tuple[tuple[int, int], ...]] = {
    5: ((3, 1), (3, 2)),
    7: ((5, 1), (3, 2), (3, 3)),
    9: ((5, 1), (5, 2), (3, 3), (3, 4)),
    11: ((5, 1), (5, 2), (3, 3), (3, 4), (3, 5)),
    13: ((5, 1), (7, 2), (3, 3), (3, 4), (3, 5)),
    15: ((5, 1), (7, 2), (3, 3), (3, 5), (3, 7)),
    17: ((5, 1), (9, 2), (3, 4), (3, 5), (3, 7)),
}


# Table 3b of 2410.08049: kinds of small branches, which all fuse into the same kernel. Each kind
# has as many branches as the dilated one (ImageNet 81.63, ADE20K mIoU 46.37).
REPARAM_BRANCHES: dict[str, Callable[[int, int], tuple[int, int]]] = {
    "dilated": lambda size, dilation: (size, dilation),
    "same_size": lambda size, dilation: (size, 1),  # same number of weights: 81.55, 46.07
    "same_reach": lambda size, dilation: (
        (size - 1) * dilation + 1,
        1,
    ),  # as wide: 81.59, 46.17
}


def branches_of(kernel_size: int, kind: str = "dilated") -> tuple[tuple[int, int], ...]:
    """(kernel size, dilation) of the branches beside a large kernel.

    Args:
        kernel_size: a key of BRANCHES; any size for "none".
        kind: a name of REPARAM_BRANCHES, or "none" for no branches (81.44, 45.78).

    Raises:
        InputError: an unknown kind, or a kernel size without known branches.
    """
    if kind == "none":
        return ()
    if kind not in REPARAM_BRANCHES:
        raise unknown("re-parameterization", kind, [*REPARAM_BRANCHES, "none"])
    if kernel_size not in BRANCHES:
        known = ", ".join(map(str, BRANCHES))
        raise InputError(
            f"no branches are known for {kernel_size=}; known are {known}, "
            "pass others as branches=((kernel size, dilation), ...)"
        )
    return tuple(REPARAM_BRANCHES[kind](*branch) for branch in BRANCHES[kernel_size])


class ConvBranch(nn.Module):
    """Depthwise convolution and batch norm: one branch of a re-parameterized block.

    Args:
        channels: C.
        kernel_size: odd, or (height, width), both odd.
        dilation: distance between neighbouring taps, in pixels.

    Shape: (N, C, H, W) -> (N, C, H, W)
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | tuple[int, int],
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.conv = DepthwiseConv2d(channels, kernel_size, dilation, bias=False, **dd)
        self.norm = nn.BatchNorm2d(channels, **dd)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def folded(self, dilation: int = 1) -> tuple[Tensor, Tensor]:
        """Kernel and bias of the convolution with this `dilation` that computes the same.

        Args:
            dilation: divides that of the branch.
        """
        kernel = undilate(self.conv.weight, self.conv.dilation[0] // dilation)
        return fold_batch_norm(kernel, None, self.norm)


class DilatedReparamBlock(nn.Module):
    """Sum of a large-kernel branch and dilated small-kernel branches.

    Args:
        channels: C.
        kernel_size: of the large kernel; 5 to 17 have the authors' branches.
        branches: (kernel size, dilation) of each small branch, if not the authors'.
        dilation: of the block: multiplies that of every branch, as a network with a
            smaller output stride needs it.

    Shape: (N, C, H, W) -> (N, C, H, W)

    Raises:
        InputError: a kernel size without known branches, or a branch wider than the kernel.
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int,
        branches: tuple[tuple[int, int], ...] | None = None,
        dilation: int = 1,
        device=None,
        dtype=None,
    ):
        super().__init__()
        if branches is None:
            branches = branches_of(kernel_size)
        for size, rate in branches:
            if (size - 1) * rate + 1 > kernel_size:
                raise InputError(
                    f"a {size}x{size} branch of dilation {rate} reaches beyond {kernel_size=}"
                )
        dd = {"device": device, "dtype": dtype}
        self.dilation = dilation
        self.large = ConvBranch(channels, kernel_size, dilation, **dd)
        self.small = nn.ModuleDict()
        names = [f"k{size}_d{rate}" for size, rate in branches]
        for i, (size, rate) in enumerate(branches):
            earlier = names[:i].count(names[i])
            name = f"{names[i]}_{earlier + 1}" if earlier else names[i]
            self.small[name] = ConvBranch(channels, size, rate * dilation, **dd)

    def forward(self, x: Tensor) -> Tensor:
        y = self.large(x)
        for branch in self.small.values():
            y = y + branch(x)
        return y

    def folded(self) -> tuple[Tensor, Tensor]:
        """Kernel (C, 1, K, K) and bias (C,) of the single convolution that computes the same.

        That convolution has the block's `dilation`.
        """
        branches: tuple[Any, ...] = (self.large, *self.small.values())
        return fold_parallel([branch.folded(self.dilation) for branch in branches])

    def fuse(self) -> DepthwiseConv2d:
        """The single large-kernel convolution that replaces the block in evaluation."""
        return DepthwiseConv2d.of(*self.folded(), self.dilation)
