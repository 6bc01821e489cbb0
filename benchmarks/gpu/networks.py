"""Networks on a GPU: images per second and memory, with our kernels and without, beside timm's."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import timm
import torch
from torch import nn

import seewide
from benchmarks.gpu.clock import Budget, milliseconds
from benchmarks.timing import peak_bytes
from seewide.models._staged import StagedNet

OURS = (
    *("unireplknet_t", "lsnet_t", "pelk_t", "slak_t", "pelk101_t", "uniconvnet_t"),
    *("unireplknet_s", "lsnet_b", "replknet_31b"),
)
RIVALS = (  # convnext for UniRepLKNet; the others of timm stand in LSNet's Table 1
    *("convnext_tiny", "repvit_m0_9", "fastvit_t8", "starnet_s1", "shvit_s1", "efficientvit_m3"),
    *("mobilenetv3_large_100", "edgenext_x_small", "mobilevitv2_050"),
)
TRAINED = (
    *("unireplknet_t", "convnext_tiny", "pelk_t", "slak_t", "lsnet_t", "uniconvnet_t"),
    *("pelk101_t", "unireplknet_s", "lsnet_b", "repvit_m0_9", "fastvit_t8", "replknet_31b"),
)
SEEWIDE, STOCK, TIMM = "seewide", "seewide, stock PyTorch kernels", "timm"
GRAPH, COMPILED = "CUDA graph", "torch.compile"
INFERENCE, TRAINING = "inference, bfloat16", "training step, bfloat16 autocast"
# Network, what, how, and the share of the time after which it is left out.
Job = tuple[str, str, "Callable[..., Iterator[Row]]", float]
COLUMNS = ("network", "what", "form", "batch", "ms", "images/s", "MiB")


@dataclass(frozen=True)
class Row:
    """A line of the result."""

    network: str
    what: str
    form: str
    batch: int
    ms: float
    bytes: int

    @property
    def speed(self) -> float:
        """Images per second."""
        return 1e3 * self.batch / self.ms

    def cells(self) -> list[object]:
        return [
            self.network, self.what, self.form, self.batch, f"{self.ms:.3f}",
            f"{self.speed:.0f}", f"{self.bytes / 2**20:.0f}",
        ]  # fmt: skip


def built(name: str, merged: bool) -> nn.Module:
    """With random weights; merged for inference, timm's where timm can."""
    torch.manual_seed(0)
    model = timm.create_model(name)
    if not merged:
        return model
    merge = seewide.fuse if isinstance(model, StagedNet) else timm.models.reparameterize_model
    return merge(model.eval())


def known(names: tuple[str, ...]) -> list[str]:
    """Those that this timm has."""
    return [name for name in names if timm.is_model(name)]


def evaluation(
    name: str, device: str, batch: int, side: int, layout: torch.memory_format
) -> Callable[[], torch.Tensor]:
    """A batch through the network; weights and images in bfloat16."""
    model = built(name, merged=True).eval().to(device, torch.bfloat16, memory_format=layout)
    x = torch.randn(batch, 3, side, side, device=device, dtype=torch.bfloat16)
    x = x.contiguous(memory_format=layout)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return model(x)

    return call


def step_of(name: str, device: str, batch: int, side: int) -> Callable[[], None]:
    """Forward, backward and AdamW, in the form that is trained; timm's networks channels last."""
    model = built(name, merged=False).train().to(device)
    if not isinstance(model, StagedNet):
        model = model.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-4)
    x = torch.randn(batch, 3, side, side, device=device)
    y = torch.randint(1000, (batch,), device=device)

    def step() -> None:
        optimizer.zero_grad()
        with torch.autocast(device, dtype=torch.bfloat16):
            loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()

    return step


def ours(device: str) -> seewide.use_backend:
    """The Triton kernels, on a GPU, also where they are not chosen by themselves."""
    return seewide.use_backend(None if device == "cpu" else "triton")


def warm(name: str, device: str) -> None:
    """One call and, of those that are trained here, one step: fills Triton's cache."""
    with ours(device):
        evaluation(name, device, 128, 224, torch.contiguous_format)()
        if name in TRAINED:
            step_of(name, device, 128, 224)()
    if name == "unireplknet_t":
        for _ in compiled(name, device, 128, 224):
            pass


def inference(name: str, device: str, batch: int, side: int) -> Iterator[Row]:
    """Ours merged; timm's in both layouts."""

    def rows(form: str, call: Callable[[], object], graph: bool = True) -> Iterator[Row]:
        ms = milliseconds([call], device)
        yield Row(name, INFERENCE, form, batch, ms, peak_bytes(call, device))
        replay = _captured(call) if graph and device != "cpu" else None
        if replay is not None:
            yield Row(name, INFERENCE, f"{form}, {GRAPH}", batch, milliseconds([replay], device), 0)

    call = evaluation(name, device, batch, side, torch.contiguous_format)
    if name in OURS:
        with ours(device):
            yield from rows(SEEWIDE, call)
        with seewide.use_backend("torch"):
            yield from rows(STOCK, call, graph=False)
    else:
        yield from rows(TIMM, call)
        last = evaluation(name, device, batch, side, torch.channels_last)
        yield from rows(f"{TIMM} channels_last", last)


def _captured(call: Callable[[], torch.Tensor]) -> Callable[[], None] | None:
    """`call`, which has run before, as one launch; None if something in it waits for the host."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph):
            call()
    except RuntimeError:
        return None
    return graph.replay


def training(name: str, device: str, batch: int, side: int) -> Iterator[Row]:
    """A step; ours with our kernels and with stock ones."""
    step = step_of(name, device, batch, side)

    def row(form: str) -> Row:
        ms = milliseconds([step], device)
        return Row(name, TRAINING, form, batch, ms, peak_bytes(step, device))

    with ours(device):
        yield row(SEEWIDE if name in OURS else TIMM)
    if name in OURS:
        with seewide.use_backend("torch"):
            yield row(STOCK)


def compiled(name: str, device: str, batch: int, side: int) -> Iterator[Row]:
    """As `inference`, with torch.compile around our kernels and around stock ones."""
    x = torch.randn(batch, 3, side, side, device=device, dtype=torch.bfloat16)
    for form, backend in ((SEEWIDE, ours(device)), (STOCK, seewide.use_backend("torch"))):
        torch.compiler.reset()
        model = torch.compile(built(name, merged=True).eval().to(device, torch.bfloat16))

        def call(model=model) -> torch.Tensor:
            with torch.inference_mode():
                return model(x)

        with backend:
            ms = milliseconds([call], device)
            memory = peak_bytes(call, device)
        yield Row(name, INFERENCE, f"{form}, {COMPILED}", batch, ms, memory)


def measure(
    jobs: Sequence[Job], device: str, budget: Budget, batch: int = 128, side: int = 224
) -> Iterator[Row]:
    """Those of `jobs` that the time suffices for."""
    for name, what, rows, share in jobs:
        title = f"{name}, {what}"
        if budget.allows(title, share):
            with budget.survives(title):
                yield from list(rows(name, device, batch, side))
            if device != "cpu":
                torch.cuda.empty_cache()


def plan() -> list[Job]:
    """Everything, what the aims name first."""
    order = ["unireplknet_t", "convnext_tiny", "lsnet_t", *RIVALS, *OURS]
    return [
        *((name, INFERENCE, inference, 0.85) for name in known(tuple(dict.fromkeys(order)))),
        *((name, TRAINING, training, 0.93) for name in known(TRAINED)),
        ("unireplknet_t", COMPILED, compiled, 0.9),
    ]
