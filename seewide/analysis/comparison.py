"""Cost, speed, receptive fields, shape bias and robustness of several models on one HTML page.

    models = [AnalyzedModel("a", model_a), AnalyzedModel("b", model_b)]
    Comparison(models, "out", images=list_images("photos", 16)).write()

writes out/index.html, which loads no other file, and beside it each figure as PNG and SVG, each
table as CSV, and all numbers as numbers.json.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from seewide.analysis.analyzed_model import AnalyzedModel, Progress, no_progress
from seewide.analysis.breakdown import break_down_cost, draw_cost_breakdown
from seewide.analysis.corruptions import available_corruptions
from seewide.analysis.cost import compare_throughput, training_memory
from seewide.analysis.erf import (
    THRESHOLDS,
    Protocol,
    draw_erf,
    effective_receptive_field,
)
from seewide.analysis.figures import draw_bars, draw_curves
from seewide.analysis.gaussian import draw_profiles, gaussian_shape
from seewide.analysis.images import stream_images
from seewide.analysis.report import code
from seewide.analysis.report_folder import ReportFolder
from seewide.analysis.robustness import corruption_errors, draw_corruptions
from seewide.analysis.shape_bias import CueConflict, draw_shape_bias, measure_shape_bias
from seewide.analysis.theory import theoretical_receptive_field
from seewide.errors import InputError

SPEED_BATCH, SPEED_ROUNDS = 4, 7
STAGE_IMAGES = 4  # for the receptive fields of single stages
UNTRAINED = "its weights are random"


@dataclass
class Comparison:
    """The sections of the page.

    Attributes:
        models: the models, with different names.
        folder: where the page is written.
        images: for the effective receptive fields.
        erf_size: size in pixels that these are resized to; the papers' 1024 takes minutes per
            model.
        conflicts: cue-conflict images; without any there is no section on shape bias.
        labeled: (file, class name) for robustness; without any there is no such section.
        progress: reports what is being measured.

    Raises:
        InputError: no models, models with equal names, or no images.
    """

    models: Sequence[AnalyzedModel]
    folder: str | os.PathLike
    images: Sequence[Path]
    erf_size: int = 512
    conflicts: Sequence[CueConflict] = ()
    labeled: Sequence[tuple[Path, str]] = ()
    progress: Progress = no_progress

    def __post_init__(self):
        names = [model.name for model in self.models]
        if not names or len({*names}) < len(names):
            raise InputError(f"a comparison needs models with different names, got {names}")
        if not self.images:
            raise InputError("a comparison needs images for the receptive fields, got none")
        title = " and ".join(names) if len(names) < 4 else f"{len(names)} models"
        lead = "Cost, speed, receptive field, shape bias and robustness."
        self.report = ReportFolder(title, lead, self.folder)

    def write(self) -> Path:
        """Measure everything and write the page; returns its path."""
        for section in (
            self.cost, self.speed, self.receptive_fields, self.stages, self.training,
            self.shape_bias, self.robustness,
        ):  # fmt: skip
            section()
        return self.report.close()

    def cost(self) -> None:
        """Parameters, multiply-adds, activations and memory, by stage and kind of layer."""
        step = self.progress("cost", len(self.models))
        splits, rows = {}, []
        for m in self.models:
            splits[m.name] = break_down_cost(m.model, m.shape)
            total = splits[m.name].total
            rows.append((
                m.name, m.image_size, total.parameters / 1e6, total.macs / 1e9,
                total.distinct_macs / 1e9, total.activations / 1e6,
                training_memory(m.model, (2, *m.shape[1:])) / 2**20,
            ))  # fmt: skip
            step()
        self.report.section(
            "Cost",
            "Per image. Multiply-adds of convolutions and matrix products; distinct multiply-adds "
            "exclude those of shared and of zero weights. Training memory is the peak of a forward "
            "and backward pass of two images, including gradients.",
        )
        columns = ("model", "px", "M parameters", "G multiply-adds", "distinct",
                   "M activations", "training memory (MB)")  # fmt: skip
        self.report.save_table("cost", columns, rows)
        for what, words in (("macs", "Multiply-adds"), ("parameters", "Parameters")):
            self.report.save_figure(
                f"split-{what}",
                lambda path, what=what: draw_cost_breakdown(splits, path, what),
                f"{words} by kind of layer.",
            )
        self.report.save_table(
            "split",
            ("model", "stage", "kind", "parameters", "multiply-adds", "distinct", "activations"),
            [(name, *row) for name, split in splits.items() for row in split.rows()],
            shown=False,
        )
        self.report.save_table(
            "stages",
            ("model", "stage", "M parameters", "G multiply-adds", "M activations"),
            [
                (name, stage, part.parameters / 1e6, part.macs / 1e9,
                 part.activations / 1e6)
                for name, split in splits.items() for stage, part in split.by_stage().items()
            ],
        )  # fmt: skip

    def speed(self) -> None:
        """Images per second, all models measured alternately."""
        batch = SPEED_BATCH
        step = self.progress("speed", 1)
        calls = {
            m.name: _forward(m.model.eval(), torch.randn(batch, *m.shape[1:])) for m in self.models
        }
        with torch.inference_mode():
            timings = compare_throughput(calls, SPEED_ROUNDS)
        step()
        self.report.section(
            "Speed",
            f"Inference of {batch} images with the unfused models, which are timed alternately; "
            f"{torch.get_num_threads()} thread(s).",
        )
        rows = []
        for name in calls:
            low, high = timings.spread(name)
            rows.append((
                name, batch / timings.median(name), batch / high,
                batch / low, timings.ratio(name, self.models[0].name),
            ))  # fmt: skip
        columns = ("model", "images/s", "1st quartile", "3rd quartile", "speedup over the first")
        self.report.save_table("speed", columns, rows)
        bars = {name: timings.bar(name) for name in calls}
        unit = f"milliseconds for {batch} images (less is better)"
        self.report.save_figure(
            "speed", lambda path: draw_bars(bars, unit, path), "Medians and quartiles."
        )

    def receptive_fields(self) -> None:
        """Effective and theoretical receptive fields, and how Gaussian the former are."""
        protocol = Protocol(len(self.images), self.erf_size)
        erfs, shapes, ratios, gaussian = {}, {}, [], []
        for m in self.models:
            step = self.progress(f"receptive field of {m.name}", len(self.images))
            images = stream_images(self.images, m.resizing(self.erf_size), step)
            erf = effective_receptive_field(m.model, images, protocol)
            erfs[m.name] = erf
            theory = theoretical_receptive_field(m.model, m.shape)
            shape = shapes[m.name] = gaussian_shape(erf)
            shares = [100 * r for r in erf.area_ratios().values()]
            ratios.append((m.name, *shares, 100 * erf.area_ratio(0.5, linear=True),
                           str(theory)))  # fmt: skip
            gaussian.append((m.name, shape.sigma, 100 * shape.gaussianity,
                             100 * shape.monotonicity))  # fmt: skip
        thresholds = [f"{t:.0%}" for t in THRESHOLDS]
        self.report.section(
            "Receptive field",
            f"Contribution of each pixel to the center of the last feature map, averaged over "
            f"{protocol.images} images of {protocol.side} x {protocol.side} pixels. The squares "
            f"contain {', '.join(thresholds)} of the scores log10(contribution + 1); the table "
            f"gives the percentage of the image that each covers, and the same for half of the "
            f"contributions without the logarithm (linear).",
        )
        self.report.save_figure(
            "erf", lambda path: draw_erf(erfs, path), "Effective receptive fields."
        )
        columns = ("model", *thresholds, "50% linear", "theoretical field")
        self.report.save_table("erf", columns, ratios)
        if not all(m.trained for m in self.models):
            self.report.text(
                "With random weights the residual connections dominate: where layer scales are "
                "initialized close to zero, the blocks contribute little before training."
            )
        self.report.section(
            "Gaussian shape",
            "The mean contribution over the distance from the center, and the Gaussian closest to "
            "it. Gaussian: percentage of the contribution that the two have in common. "
            "Monotonicity: percentage of the total variation of the profile that is decrease.",
        )
        self.report.save_figure(
            "profiles", lambda path: draw_profiles(shapes, path), "Radial profiles."
        )
        self.report.save_table(
            "gaussian", ("model", "sigma (px)", "Gaussian (%)", "monotonicity (%)"), gaussian
        )

    def stages(self) -> None:
        """Effective receptive fields of the stages."""
        rows, images = [], self.images[:STAGE_IMAGES]
        for m in self.models:
            infos = getattr(m.model, "feature_info", None) or ()
            names = [i["module"] for i in infos if isinstance(i, dict) and "module" in i]
            step = self.progress(f"stages of {m.name}", len(names))
            for name in names:
                erf = effective_receptive_field(
                    m.model, stream_images(images, m.resizing(self.erf_size)), layer=name
                )
                sides = [erf.side(share, linear=True) for share in (0.5, 0.99)]
                sides.append(max(erf.support))
                rows.append((m.name, name, *(min(side, self.erf_size) for side in sides)))
                step()
        if not rows:
            return
        self.report.section(
            "Receptive field by stage",
            f"Size in pixels of the squares with 50% and 99% of the contributions to the center of "
            f"each stage's output, and of the box with all of them; {len(images)} images.",
        )
        self.report.save_table("field-by-stage", ("model", "stage", "50%", "99%", "all"), rows)

    def training(self) -> None:
        """Training curves of the models that have metrics."""
        runs = [m for m in self.models if m.metrics]
        if runs:
            self.report.section("Training")
        for m in runs:
            self.report.save_figure(
                f"curves-{m.name}",
                lambda path, m=m: draw_curves(m.metrics, path),
                f"Loss and accuracy of {m.name} over the epochs.",
            )

    def shape_bias(self) -> None:
        """Shape bias on cue-conflict images."""
        if not self.conflicts:
            return
        self.report.section(
            "Shape bias",
            "Images with the shape of one class and the texture of another (Geirhos et al., "
            "2019): the share of shape decisions among decisions for shape or texture. Lines: "
            "totals, with 95% intervals; dotted: published networks and humans.",
        )
        results = {}
        for m in self.models:
            if not m.trained or m.num_classes() not in (16, 1000):
                reason = "its classes are neither ImageNet's 1000 nor the 16"
                self._not_measured(m, reason)
                continue
            step = self.progress(f"shape bias of {m.name}", len(self.conflicts))
            results[m.name] = measure_shape_bias(
                m.model.eval(), self.conflicts, m.prepare, progress=step
            )
            self.report.text(f"{code(m.name)}: {results[m.name]}.")
        if results:
            self.report.save_figure(
                "shape-bias", lambda path: draw_shape_bias(results, path), "Shape bias by class."
            )
            rows = [
                (name, c, sh, te, no, *(100 * x for x in shares))
                for name, result in results.items()
                for c, sh, te, no, *shares in result.rows()
            ]
            columns = ("model", "class", "shape", "texture", "neither", "bias (%)", "low", "high")
            self.report.save_table("shape-bias", columns, rows)

    def robustness(self) -> None:
        """Errors under ImageNet-C's corruptions."""
        if not self.labeled:
            return
        self.report.section(
            "Robustness",
            f"Error (%) on {len(self.labeled)} images with ImageNet-C's corruptions at severities "
            f"1 to 5, and without corruption (0). mCE is relative to AlexNet's errors on ImageNet; "
            f"for other classes it only ranks the models.",
        )
        corruptions, reason = available_corruptions()
        results, rows = {}, []
        for m in self.models:
            indices = {name: i for i, name in enumerate(m.class_names)}
            if not m.trained or any(label not in indices for _, label in self.labeled):
                self._not_measured(m, "its classes are not those of the images")
                continue
            images = [(path, indices[label]) for path, label in self.labeled]
            steps = (1 + 5 * len(corruptions)) * len(images)
            results[m.name] = corruption_errors(
                m.model.eval(), images, m.crop, m.normalize, corruptions,
                progress=self.progress(f"corruptions, {m.name}", steps),
            )  # fmt: skip
            rows += [(m.name, name, *values)
                     for name, *values in results[m.name].rows()]  # fmt: skip
            self.report.text(f"{code(m.name)}: {results[m.name]}.")
        if results and reason:
            self.report.text(f"Without frost: {reason}.")
        if results:
            self.report.save_figure(
                "corruptions", lambda path: draw_corruptions(results, path), "Error over severity."
            )
            self.report.save_table(
                "corruptions", ("model", "corruption", *"12345", "mean", "CE"), rows
            )

    def _not_measured(self, model: AnalyzedModel, reason: str) -> None:
        reason = reason if model.trained else UNTRAINED
        self.report.text(f"{code(model.name)}: not measured, {reason}.")


def _forward(model: nn.Module, x: Tensor) -> Callable[[], Tensor]:
    return lambda: model(x)
