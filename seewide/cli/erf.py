"""`seewide erf`."""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from seewide.cli._files import write_json
from seewide.cli._parser import Parser, whole
from seewide.cli._subjects import load_subjects, needed
from seewide.console import bars, print_table, say
from seewide.errors import unknown

DETAILS = """
Prints the area of the smallest square that holds 20, 30, 50 and 99% of the scores, as a
percentage of the image, and how closely a Gaussian fits the field.

examples:
  seewide erf unireplknet_t.in1k convnext_tiny --data photos --protocol replknet
  seewide erf unireplknet_a pelk_t --data photos --random-weights
  seewide erf runs/unireplknet_a-flowers --data flowers/val --layer stages.2
"""


def arguments(parser: Parser) -> None:
    parser.share("models", nargs="+")
    parser.share("--data")
    text = "replknet: 50 images at 1024 px. uniconvnet: 1000 images at 224 px."
    parser.add("--protocol", text, metavar="replknet|uniconvnet")
    parser.add("--images", "Number of images, without a protocol.", whole(1), 16)
    parser.add("--side", "Their side in pixels, without a protocol.", whole(16), 512)
    parser.add("--layer", "A layer by name. Default: that of the last feature map.", metavar="NAME")
    parser.add("--batch", "Images per batch.", whole(1), 1)
    parser.add("--recompute", "Recompute activations in backward: less memory, slower.", bool)
    parser.share("--random-weights")
    text = "Figure; the numbers go into a JSON file beside it."
    parser.add("--out", text, Path, Path("erf.png"), "FILE")


def run(arguments: Namespace) -> None:
    from seewide.analysis.erf import (
        PROTOCOLS,
        THRESHOLDS,
        Protocol,
        draw_erf,
        effective_receptive_field,
    )
    from seewide.analysis.figures import figure_path
    from seewide.analysis.gaussian import gaussian_shape
    from seewide.analysis.images import list_images, stream_images
    from seewide.analysis.theory import theoretical_receptive_field

    if arguments.protocol not in (None, *PROTOCOLS):
        raise unknown("ERF protocol", arguments.protocol, PROTOCOLS)
    protocol = PROTOCOLS.get(arguments.protocol, Protocol(arguments.images, arguments.side))
    paths = list_images(needed(arguments.data, "images"), protocol.images)
    layer, out = arguments.layer, figure_path(arguments.out)
    fields, numbers, rows = {}, {}, []
    subjects = load_subjects(arguments)
    with bars() as progress:
        for subject in subjects:
            step = progress(subject.name, len(paths))
            field = effective_receptive_field(
                subject.model,
                stream_images(paths, subject.resizing(protocol.side), step),
                protocol,
                layer=layer,
                batch=arguments.batch,
                recompute=arguments.recompute,
            )
            shape = (1, 3, protocol.side, protocol.side)
            theory = theoretical_receptive_field(subject.model, shape, layer=layer)
            gaussian = gaussian_shape(field)
            ratios = field.area_ratios()
            linear = {f"{t:g}": field.area_ratio(t, True) for t in THRESHOLDS}
            rows.append(
                (
                    subject.name,
                    *(f"{100 * ratio:.1f}" for ratio in ratios.values()),
                    f"{100 * linear['0.5']:.2f}",
                    f"{100 * gaussian.gaussianity:.1f}",
                    theory,
                )
            )
            fields[subject.name] = field
            numbers[subject.name] = {
                "images": field.images,
                "side": protocol.side,
                "layer": layer,
                "area_ratio": {f"{t:g}": ratio for t, ratio in ratios.items()},
                "area_ratio_linear": linear,
                "gaussianity": gaussian.gaussianity,
                "sigma": gaussian.sigma,
                "monotonicity": gaussian.monotonicity,
                "theoretical": {"size": theory.size, "is_global": theory.is_global},
            }
    shares = [f"{t:.0%}" for t in THRESHOLDS]
    print_table("", ("model", *shares, "50% linear", "Gaussian %", "theory"), rows)
    figure = draw_erf(fields, out)
    say(f"written: {figure}, {write_json(out.with_suffix('.json'), numbers)}")
