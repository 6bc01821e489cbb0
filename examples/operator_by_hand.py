"""The operator under the networks: a depthwise convolution of any size, and who computes it."""

import torch

from seewide import explain, use_backend
from seewide.analysis.cost import compare_throughput
from seewide.numerics import deviation
from seewide.ops import depthwise_conv2d

x = torch.randn(1, 64, 56, 56, requires_grad=True)
weight = torch.randn(64, 1, 31, 31, requires_grad=True)

# Stride 1, same padding, any odd size. It differentiates, compiles and exports as torch's own does.
y = depthwise_conv2d(x, weight)
y.sum().backward()
print(f"x {tuple(x.shape)}, weight {tuple(weight.shape)} -> y {tuple(y.shape)}\n")

# Every call chooses its backend by its arguments, and says why if asked.
explain(depthwise_conv2d, x, weight)

# One result, whoever computes it. "reference" is the definition, tap by tap.
with use_backend("reference"):
    wanted = depthwise_conv2d(x, weight)
print(f"\nlargest deviation from the definition: {deviation(y, wanted):.1e}\n")


def stock() -> torch.Tensor:
    with use_backend("torch"):
        return depthwise_conv2d(x, weight)


with torch.no_grad():
    timings = compare_throughput(
        {"stock": stock, "seewide": lambda: depthwise_conv2d(x, weight)}, 5
    )
for label, median, quartiles, ratio in timings.rows():
    print(f"{label:8} {median:>8}  ({quartiles})  {ratio}")
