"""What networks see, cost and withstand, side by side, as one page.

    subjects = [Subject("a", model_a), Subject("b", model_b)]
    Comparison(subjects, "out", photographs=list_pictures("photos", 16)).write()

writes out/index.html, which needs nothing but itself, and beside it every figure as PNG and SVG,
every table as CSV, and all numbers as numbers.json.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seewide.analysis.corruptions import corruptions_here
from seewide.analysis.cost import compare_throughput, training_memory
from seewide.analysis.erf import (
    THRESHOLDS,
    Protocol,
    draw_erf,
    effective_receptive_field,
)
from seewide.analysis.gaussian import draw_profiles, gaussian_shape
from seewide.analysis.images import stream
from seewide.analysis.pictures import draw_bars, draw_curves
from seewide.analysis.robustness import corruption_errors, draw_corruptions
from seewide.analysis.shape_bias import Conflict, draw_shape_bias, measure_shape_bias
from seewide.analysis.split import draw_split, split_cost
from seewide.analysis.subject import Progress, Subject
from seewide.analysis.theory import theoretical_receptive_field
from seewide.analysis.workbook import Workbook
from seewide.errors import InputError


@dataclass
class Comparison:
    """The page, section by section.

    Attributes:
        subjects: the networks, by different names.
        folder: where the page goes.
        photographs: for the receptive fields.
        field_side: their side in pixels there; the papers' 1024 takes minutes per network.
        conflicts: cue-conflict pictures; without any, shape bias is left out.
        labelled: (file, name of the class) for robustness; without any, it is left out.
        progress: told what is being measured.
    """

    subjects: Sequence[Subject]
    folder: str | os.PathLike
    photographs: Sequence[Path]
    field_side: int = 512
    conflicts: Sequence[Conflict] = ()
    labelled: Sequence[tuple[Path, str]] = ()
    progress: Progress = lambda what, steps: lambda: None

    def __post_init__(self):
        names = [subject.name for subject in self.subjects]
        if not names or len({*names}) < len(names):
            raise InputError(f"a comparison takes networks of different names, got {names}")
        if not self.photographs:
            raise InputError("a comparison takes photographs for the receptive fields, got none")
        title = " and ".join(names) if len(names) < 4 else f"{len(names)} networks"
        lead = "What they see, what they cost, what they withstand."
        self.book = Workbook(title, lead, self.folder)

    def write(self) -> Path:
        """Measure everything and write the page; returns its path."""
        for section in (
            self.cost, self.speed, self.receptive_fields, self.stages, self.learning,
            self.shape_bias, self.robustness,
        ):  # fmt: skip
            section()
        return self.book.close()

    def cost(self) -> None:
        """Parameters, multiply-adds, memory; and where they are."""
        step = self.progress("counting", len(self.subjects))
        splits, rows = {}, []
        for s in self.subjects:
            splits[s.name] = split_cost(s.model, s.shape)
            total = splits[s.name].total
            rows.append((
                s.name, s.side, total.parameters / 1e6, total.macs / 1e9,
                total.distinct_macs / 1e9, total.activations / 1e6,
                training_memory(s.model, (2, *s.shape[1:])) / 2**20,
            ))  # fmt: skip
            step()
        self.book.section(
            "Cost",
            "For one picture. Multiply-adds are of convolutions and matrix products; distinct "
            "leaves out those of shared and of zero weights. Training memory is the most that a "
            "forward and backward pass of two pictures holds at once, gradients included.",
        )
        columns = ("network", "px", "M parameters", "G multiply-adds", "distinct",
                   "M activations", "MB to train")  # fmt: skip
        self.book.keep_table("cost", columns, rows)
        for what, words in (("macs", "Multiply-adds"), ("parameters", "Parameters")):
            self.book.keep_figure(
                f"split-{what}",
                lambda path, what=what: draw_split(splits, path, what),
                f"{words} by kind of layer.",
            )
        self.book.keep_table(
            "split",
            ("network", "stage", "kind", "parameters", "multiply-adds", "distinct", "activations"),
            [(name, *row) for name, split in splits.items() for row in split.rows()],
            shown=False,
        )
        self.book.keep_table(
            "stages",
            ("network", "stage", "M parameters", "G multiply-adds", "M activations"),
            [
                (name, stage, part.parameters / 1e6, part.macs / 1e9,
                 part.activations / 1e6)
                for name, split in splits.items() for stage, part in split.by_stage().items()
            ],
        )  # fmt: skip

    def speed(self) -> None:
        """Pictures per second, in turns in one run."""
        batch, rounds = 4, 7
        step = self.progress("timing", 1)
        calls = {
            s.name: _forward(s.model.eval(), torch.randn(batch, *s.shape[1:]))
            for s in self.subjects
        }
        with torch.inference_mode():
            timings = compare_throughput(calls, rounds)
        step()
        self.book.section(
            "Speed",
            f"Inference of {batch} pictures in training form, the networks in turns, "
            f"{torch.get_num_threads()} thread(s).",
        )
        rows = []
        for name in calls:
            low, high = timings.spread(name)
            rows.append((
                name, batch / timings.median(name), batch / high,
                batch / low, timings.ratio(name, self.subjects[0].name),
            ))  # fmt: skip
        columns = ("network", "pictures/s", "1st quartile", "3rd quartile", "times the first")
        self.book.keep_table("speed", columns, rows)
        bars = {name: timings.bar(name) for name in calls}
        unit = f"milliseconds for {batch} pictures (less is better)"
        self.book.keep_figure(
            "speed", lambda path: draw_bars(bars, unit, path), "Medians and quartiles."
        )

    def receptive_fields(self) -> None:
        """Effective and theoretical fields, area ratios, and how Gaussian they are."""
        protocol = Protocol(len(self.photographs), self.field_side)
        fields, shapes, ratios, gaussian = {}, {}, [], []
        for s in self.subjects:
            step = self.progress(f"receptive field of {s.name}", len(self.photographs))
            images = stream(self.photographs, self.field_side, s.mean, s.std, step)
            erf = effective_receptive_field(s.model, images, protocol)
            fields[s.name] = erf
            theory = theoretical_receptive_field(s.model, s.shape)
            shape = shapes[s.name] = gaussian_shape(erf)
            shares = [100 * r for r in erf.area_ratios().values()]
            ratios.append((s.name, *shares, 100 * erf.area_ratio(0.5, linear=True),
                           str(theory)))  # fmt: skip
            gaussian.append((s.name, shape.sigma, 100 * shape.gaussianity,
                             100 * shape.monotonicity))  # fmt: skip
        thresholds = [f"{t:.0%}" for t in THRESHOLDS]
        self.book.section(
            "Receptive field",
            f"Which pixels of {protocol.images} photographs, {protocol.side} px a side, raise the "
            f"centre of the last feature map. The squares hold {', '.join(thresholds)} of the "
            f"scores log10(contribution + 1); the table says which percentage of the picture each "
            f"covers, and beside it the square of half the contributions themselves.",
        )
        self.book.keep_figure(
            "erf", lambda path: draw_erf(fields, path), "Effective receptive fields."
        )
        columns = ("network", *thresholds, "50% linear", "theoretical field")
        self.book.keep_table("erf", columns, ratios)
        if not all(s.trained for s in self.subjects):
            self.book.text(
                "Random weights show what the way around the blocks lets through: where layer "
                "scales begin near zero, the blocks themselves hardly count before training."
            )
        self.book.section(
            "Gaussian shape",
            "The mean contribution over the distance to the centre, against the Gaussian that is "
            "nearest. Gaussian: percentage of the contribution that lies where the Gaussian has "
            "it. Falling: percentage of the profile's way, out from the centre, that goes down.",
        )
        self.book.keep_figure(
            "profiles", lambda path: draw_profiles(shapes, path), "Profiles of the fields."
        )
        self.book.keep_table(
            "gaussian", ("network", "sigma, px", "Gaussian %", "falling %"), gaussian
        )

    def stages(self) -> None:
        """How the field grows from stage to stage."""
        rows, few = [], self.photographs[:4]
        for s in self.subjects:
            infos = getattr(s.model, "feature_info", None) or ()
            names = [i["module"] for i in infos if isinstance(i, dict) and "module" in i]
            step = self.progress(f"stages of {s.name}", len(names))
            for name in names:
                erf = effective_receptive_field(
                    s.model, stream(few, self.field_side, s.mean, s.std), layer=name
                )
                sides = [erf.side(share, linear=True) for share in (0.5, 0.99)]
                sides.append(max(erf.support))
                rows.append((s.name, name, *(min(side, self.field_side) for side in sides)))
                step()
        if not rows:
            return
        self.book.section(
            "From stage to stage",
            f"Side in pixels of the squares with 50% and 99% of the contributions to the centre of "
            f"each stage's output, and of the box that holds all of it; {len(few)} photographs.",
        )
        self.book.keep_table("field-by-stage", ("network", "stage", "50%", "99%", "all"), rows)

    def learning(self) -> None:
        """Curves of the networks that are runs."""
        runs = [s for s in self.subjects if s.metrics]
        if runs:
            self.book.section("Training")
        for s in runs:
            self.book.keep_figure(
                f"curves-{s.name}",
                lambda path, s=s: draw_curves(s.metrics, path),
                f"Loss and accuracy of {s.name} over the epochs.",
            )

    def shape_bias(self) -> None:
        """By shape or by texture."""
        if not self.conflicts:
            return
        self.book.section(
            "Shape bias",
            "Pictures with the shape of one class and the texture of another (Geirhos et al., "
            "2019): decisions for the shape, of those for either. Lines: totals, with 95% "
            "intervals; dotted: published networks and humans.",
        )
        results = {}
        for s in self.subjects:
            if not s.trained or s.classes() not in (16, 1000):
                why = "it decides neither among 1000 nor among the 16 classes"
                self.book.text(f"`{s.name}`: not measured, {why if s.trained else _UNTRAINED}.")
                continue
            step = self.progress(f"shape bias of {s.name}", len(self.conflicts))
            results[s.name] = measure_shape_bias(
                s.model.eval(), self.conflicts, s.prepare, progress=step
            )
            self.book.text(f"`{s.name}`: {results[s.name]}.")
        if results:
            self.book.keep_figure(
                "shape-bias", lambda path: draw_shape_bias(results, path), "Shape bias by class."
            )
            rows = [
                (name, c, sh, te, no, *(100 * x for x in shares))
                for name, result in results.items()
                for c, sh, te, no, *shares in result.rows()
            ]
            columns = ("network", "class", "shape", "texture", "neither", "bias %", "low", "high")
            self.book.keep_table("shape-bias", columns, rows)

    def robustness(self) -> None:
        """ImageNet-C's corruptions of the labelled pictures."""
        if not self.labelled:
            return
        self.book.section(
            "Robustness",
            f"Percentage wrong of {len(self.labelled)} pictures under ImageNet-C's corruptions, "
            f"without (0) and at severities 1 to 5. mCE sets the errors over AlexNet's on "
            f"ImageNet, so across other classes only its order means something.",
        )
        corruptions, reason = corruptions_here()
        results, rows = {}, []
        for s in self.subjects:
            places = {name: i for i, name in enumerate(s.class_names)}
            if not s.trained or any(label not in places for _, label in self.labelled):
                why = "its classes are not those of the pictures" if s.trained else _UNTRAINED
                self.book.text(f"`{s.name}`: not measured, {why}.")
                continue
            pictures = [(path, places[label]) for path, label in self.labelled]
            steps = (1 + 5 * len(corruptions)) * len(pictures)
            results[s.name] = corruption_errors(
                s.model.eval(), pictures, s.crop, s.normalize, corruptions,
                progress=self.progress(f"corruptions, {s.name}", steps),
            )  # fmt: skip
            rows += [(s.name, name, *values)
                     for name, *values in results[s.name].rows()]  # fmt: skip
            self.book.text(f"`{s.name}`: {results[s.name]}.")
        if results and reason:
            self.book.text(f"Without frost: {reason}.")
        if results:
            self.book.keep_figure(
                "corruptions", lambda path: draw_corruptions(results, path), "Error over severity."
            )
            self.book.keep_table(
                "corruptions", ("network", "corruption", *"12345", "mean", "CE"), rows
            )


_UNTRAINED = "its weights are random"


def _forward(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: model(x)
