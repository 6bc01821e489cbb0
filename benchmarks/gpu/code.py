"""What the Triton kernels compile to, without a GPU: `python -m benchmarks.gpu code`.

Triton's package brings NVIDIA's assembler. So every launch of the real calls below, forward and
backward, is compiled for each architecture instead of started, with the arguments' types and
divisibilities that it would have been started with; a line says what the kernel needs.

A kernel spills if it has more numbers than registers; one that needs more shared memory than a
multiprocessor has (sm_80: 163 KiB, sm_90: 227) does not start at all.
"""

from __future__ import annotations

import contextlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import torch
import triton
from rich.console import Console
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

import seewide
from benchmarks.conditions import write_rows
from seewide.console import make_table
from seewide.kernels.triton import (
    aggregation,
    deformable,
    depthwise,
    direct,
    launch,
    peripheral,
    toeplitz,
)
from seewide.ops import sharing_grid

ARCHITECTURES = {80: 163 * 1024, 90: 227 * 1024}  # shared memory that one program can have
TYPES = {
    torch.float32: "fp32",
    torch.bfloat16: "bf16",
    torch.float16: "fp16",
    torch.int32: "i32",
}
COLUMNS = (
    *("call", "kernel", "tiles", "warps", "arch", "registers", "spilled bytes"),
    *("shared KiB", "tensor cores"),
)


@dataclass(frozen=True)
class Launch:
    """A kernel as it was about to be started."""

    kernel: JITFunction
    arguments: dict[str, object]
    config: launch.Config

    @property
    def key(self) -> tuple:
        return (self.kernel.__name__, str(self.source()), str(self.config))

    def source(self) -> dict[str, tuple]:
        """By argument: its type, whether 16 divides it, and its value if that is compiled in."""
        found = {}
        for name, value in self.arguments.items():
            constant = self.kernel.params[self.kernel.arg_names.index(name)].is_constexpr
            if constant or (isinstance(value, int) and value == 1):
                found[name] = ("constexpr", False, value)
            elif isinstance(value, torch.Tensor):
                found[name] = (f"*{TYPES[value.dtype]}", value.data_ptr() % 16 == 0, None)
            elif isinstance(value, float):
                found[name] = ("fp32", False, None)
            else:
                found[name] = ("i32" if abs(value) < 2**31 else "i64", value % 16 == 0, None)
        return found

    def compiled(self, architecture: int):
        """Triton's compiled kernel."""
        index = self.kernel.arg_names.index
        source = self.source()
        program = ASTSource(
            self.kernel,
            {name: kind for name, (kind, _, _) in source.items()},
            {(index(n),): value for n, (kind, _, value) in source.items() if kind == "constexpr"},
            {(index(n),): [["tt.divisibility", 16]] for n, (_, even, _) in source.items() if even},
        )
        options = {"num_warps": self.config.warps, "num_stages": self.config.stages}
        options["enable_fp_fusion"] = True
        target = GPUTarget("cuda", architecture, 32)
        return triton.compile(program, target=target, options=options)


def launches(call: Callable[[], object], every: bool, architecture: int) -> list[Launch]:
    """What `call` would start: with its first configurations, or with `every` candidate."""
    caught: dict[tuple, Launch] = {}

    def catch(kernel, programs, *args, config, **constants):
        names = [name for name in kernel.arg_names if name not in (*constants, *config.tiles)]
        arguments = dict(zip(names, args, strict=True)) | constants | config.tiles
        ordered = {name: arguments[name] for name in kernel.arg_names}
        each = Launch(kernel, ordered, config)
        caught.setdefault(each.key, each)

    def try_all(kernel, shapes, configs, run, device):
        for config in configs if every else configs[:1]:
            run(config)
        return configs[0]

    with contextlib.ExitStack() as patches:
        for module in (toeplitz, direct, aggregation, deformable, peripheral):
            patches.enter_context(mock.patch.multiple(module, launch=catch, choose=try_all))
        patches.enter_context(mock.patch.object(toeplitz, "wgmma", return_value=architecture >= 90))
        call()
    return list(caught.values())


def needs(kernel) -> tuple[int, int, int, str]:
    """Registers per thread, spilled bytes per thread, shared bytes, and its tensor instructions."""
    tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(kernel.asm["cubin"])
        file.flush()
        usage, code = (
            subprocess.run([*tool, file.name], capture_output=True, text=True, check=True).stdout
            for tool in ((tools / "cuobjdump", "-res-usage"), (tools / "nvdisasm", "-c"))
        )
    registers, stack = (int(re.search(rf"{word}:(\d+)", usage)[1]) for word in ("REG", "STACK"))
    tensor = sorted(set(re.findall(r"\bH[G]?MMA\.[0-9]+x[0-9]+x[0-9]+|\bHMMA\.\d+", code)))
    return registers, stack, kernel.metadata.shared, " ".join(tensor)


def calls() -> Iterator[tuple[str, Callable[[], object]]]:
    """The operators as the networks call them, with gradients; tensors that nobody reads."""

    def backward(op, tensors, *rest):
        leaves = [t.requires_grad_() for t in tensors]
        return lambda: op(*leaves, *rest).sum().backward()

    for dtype in (torch.bfloat16, torch.float32):
        title = str(dtype).removeprefix("torch.")
        for N, C, side, K in (
            *((64, 8, 32, 31), (64, 8, 64, 31), (64, 8, 16, 13), (128, 8, 14, 13)),
            *((128, 8, 28, 13), (128, 8, 7, 7), (1, 8, 200, 51), (128, 8, 56, 5)),
        ):
            x, weight = torch.empty(N, C, side, side, dtype=dtype), torch.empty(C, 1, K, K)
            name = f"depthwise {N}x{C}x{side}x{side} K={K} {title}"
            tensors = (x, weight.to(dtype), torch.empty(C, dtype=dtype))
            yield name, backward(depthwise.depthwise_conv2d, tensors, 1)
        for C, side, K in ((96, 56, 7), (64, 28, 5)):
            x = torch.empty(16, C, side, side, dtype=dtype)
            x = x.contiguous(memory_format=torch.channels_last)
            name = f"depthwise, channels last 16x{C}x{side}x{side} K={K} {title}"
            tensors = (x, x.new_empty(C, 1, K, K), x.new_empty(C))
            yield name, backward(depthwise.depthwise_conv2d, tensors, 1)
        for side, K in ((56, 51), (28, 49)):
            x, grid = torch.empty(16, 8, side, side, dtype=dtype), sharing_grid(K)
            tensors = (x, x.new_empty(8, len(grid), len(grid)), x.new_empty(8))
            name = f"peripheral 16x8x{side}x{side} K={K} {title}"
            op = lambda x, w, b, grid=grid: peripheral.peripheral_conv2d(x, w, grid, b)  # noqa: E731
            yield name, backward(op, tensors)
        for side in (28, 14, 7):
            x = torch.empty(8, 128, side, side, dtype=dtype)
            weight = torch.empty(8, 16, 9, side, side, dtype=dtype)
            name = f"aggregation 8x128x{side}x{side} {title}"
            yield name, backward(aggregation.small_kernel_aggregation, (x, weight))
        for D in (8, 16):
            for softmax in (False, True):
                x = torch.empty(2, 28, 28, 4 * D, dtype=dtype)
                shape = (2, 28, 28)
                tensors = (x, x.new_empty(*shape, 72), x.new_empty(*shape, 36))
                name = f"dcnv3 2x28x28, 4 groups of {D}{', softmax' if softmax else ''} {title}"
                yield name, backward(deformable.dcnv3, tensors, 3, 4, 1.0, 1, 1, softmax)


def run(
    console: Console, every: bool, architectures: list[int], pattern: str
) -> list[tuple[str, ...]]:
    """Compile, and print a line per kernel and architecture; all of them go into results/.

    Args:
        every: all candidates of each configuration list, not only the first.
        architectures: of ARCHITECTURES.
        pattern: a regular expression that a call's name must contain.

    Returns:
        The lines, by COLUMNS.
    """
    rows, seen = [], set()
    for name, call in calls():
        if not re.search(pattern, name):
            continue
        for architecture in architectures:
            for each in launches(call, every, architecture):
                if (architecture, each.key) in seen:
                    continue
                seen.add((architecture, each.key))
                registers, spilled, shared, tensor = needs(each.compiled(architecture))
                tiles = " ".join(f"{k}{v}" for k, v in each.config.tiles.items())
                fits = "" if shared <= ARCHITECTURES[architecture] else " (too much)"
                rows.append((
                    name, each.kernel.__name__.strip("_").removesuffix("_kernel"), tiles,
                    str(each.config.warps), f"sm_{architecture}", str(registers), str(spilled),
                    f"{shared / 1024:.0f}{fits}", tensor,
                ))  # fmt: skip
                console.print(*rows[-1], sep=" | ", soft_wrap=True, markup=False)
    table = make_table(f"Triton {triton.__version__}", *COLUMNS, left=COLUMNS[:3])
    for row in rows:
        table.add_row(*row)
    console.print(table)
    if not pattern and not every:
        versions = {"torch": torch.__version__, "seewide": seewide.__version__}
        written = write_rows(f"code-triton{triton.__version__}", versions, COLUMNS, rows)
        console.print(f"wrote {written}", highlight=False)
    return rows
