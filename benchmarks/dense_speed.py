"""Whole systems beside the same system from parts of torchvision and smp, on one CPU thread.

    taskset -c 0 python -m benchmarks.dense_speed

RetinaNet (against torchvision's head, pyramid and post-processing) and UPerNet (against
segmentation_models_pytorch's) on the same backbone, fused in both, for one image of 480 x 640
pixels. The two are measured in turns; a ratio is the median over the rounds of theirs / ours, in
CPU time of the process. Memory is the peak of a call above what was resident before. Weights are
random, so that there are no detections to suppress.
"""

from __future__ import annotations

import argparse
import ctypes
import statistics
import time
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import seewide
from benchmarks.conditions import Settings, write_csv
from seewide.dense import BatchImages
from seewide.errors import require

BACKBONES = ("lsnet_t", "unireplknet_a")
HEIGHT, WIDTH = 480, 640


class Pyramid(nn.Module):
    """A timm backbone and torchvision's FPN over its maps of strides 8, 16 and 32."""

    out_channels = 256

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        from torchvision.ops.feature_pyramid_network import FeaturePyramidNetwork, LastLevelP6P7

        self.backbone = backbone
        info = backbone.feature_info
        self.take = [i for i, stride in enumerate(info.reduction()) if stride in (8, 16, 32)]
        channels = [info.channels()[i] for i in self.take]
        extra = LastLevelP6P7(channels[-1], 256)
        self.fpn = FeaturePyramidNetwork(channels, 256, extra)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.backbone(x)
        return self.fpn(OrderedDict((str(i), maps[i]) for i in self.take))


def torchvision_retinanet(backbone: nn.Module) -> Callable[[Tensor], object]:
    from torchvision.models.detection import RetinaNet
    from torchvision.models.detection.anchor_utils import AnchorGenerator

    sizes = tuple(
        (s, int(s * 2 ** (1 / 3)), int(s * 2 ** (2 / 3))) for s in (32, 64, 128, 256, 512)
    )
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * 5)
    model = RetinaNet(
        Pyramid(backbone), 80, min_size=HEIGHT, max_size=1333, anchor_generator=anchors
    ).eval()
    return lambda image: model([image])


def our_retinanet(backbone: nn.Module) -> Callable[[Tensor], object]:
    model = seewide.create_detector("retinanet", backbone, 80, images=BatchImages(HEIGHT, 1333))
    model = seewide.fuse(model.eval())
    return lambda image: model([image])


def smp_upernet(name: str) -> Callable[[Tensor], object]:
    smp = require("segmentation_models_pytorch", extra="dev")
    model = smp.create_model("upernet", f"tu-{name}", encoder_weights=None, classes=150).eval()
    model = seewide.fuse(model)
    return lambda image: model(image[None])


def our_upernet(name: str) -> Callable[[Tensor], object]:
    model = seewide.fuse(seewide.create_segmenter("upernet", name, 150).eval())
    return lambda image: model(image[None])["out"]


def pairs(name: str) -> dict[str, tuple[Callable[[], Callable], Callable[[], Callable]]]:
    """System -> (ours, theirs), each to be built."""
    import timm

    def backbone() -> nn.Module:
        torch.manual_seed(0)
        return timm.create_model(name, features_only=True).eval()

    return {
        "RetinaNet, torchvision": (
            lambda: our_retinanet(backbone()),
            lambda: torchvision_retinanet(seewide.fuse(backbone())),
        ),
        "UPerNet, smp": (lambda: our_upernet(name), lambda: smp_upernet(name)),
    }


def resident_peak() -> int:
    """Peak resident memory since the last reset, in bytes (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


@torch.no_grad()
def measure(ours: Callable, theirs: Callable, rounds: int) -> tuple[list[float], list[float], list]:
    image = torch.rand(3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))
    times: tuple[list[float], list[float]] = ([], [])
    memory = []
    for run in (ours, theirs):
        run(image)
        ctypes.CDLL("libc.so.6").malloc_trim(0)  # so that no freed memory is reused
        Path("/proc/self/clear_refs").write_text("5")
        before = resident_peak()
        run(image)
        memory.append((resident_peak() - before) / 1e6)
    for number in range(rounds):
        for index in (0, 1) if number % 2 else (1, 0):
            started = time.process_time()
            (ours, theirs)[index](image)
            times[index].append(time.process_time() - started)
    return *times, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    rows = []
    for name in BACKBONES:
        for system, (make_ours, make_theirs) in pairs(name).items():
            try:
                ours, theirs = make_ours(), make_theirs()
            except (RuntimeError, ValueError, KeyError, AttributeError) as error:
                rows.append((name, system, "", "", "", "", "", f"not built: {str(error)[:80]}"))
                print(rows[-1], flush=True)
                continue
            mine, other, memory = measure(ours, theirs, rounds)
            ratio = statistics.median(b / a for a, b in zip(mine, other, strict=True))
            rows.append(
                (
                    name, system, f"{1e3 * min(mine):.0f}", f"{1e3 * min(other):.0f}",
                    f"{ratio:.2f}", f"{memory[0]:.0f}", f"{memory[1]:.0f}", "",
                )
            )  # fmt: skip
            print(rows[-1], flush=True)
    header = ("backbone", "system, peer", "ours ms", "peer ms", "peer / ours", "ours MB", "peer MB",
              "note")  # fmt: skip
    print(write_csv(f"dense-systems-{HEIGHT}x{WIDTH}", header, rows, Settings()))


if __name__ == "__main__":
    main()
