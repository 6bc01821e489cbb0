"""`make demo`: train UniRepLKNet-A on the bundled digits, fuse, export, time and explain it."""

import argparse
import shutil
from pathlib import Path

import timm
import torch

import seewide
from seewide.analysis import sections
from seewide.analysis.erf import Protocol
from seewide.analysis.report import Report
from seewide.export import export_model
from seewide.train import fit, load_run
from seewide.train.feed import make_eval_loader


def main(out: Path, smoke: bool) -> None:
    shutil.rmtree(out, ignore_errors=True)
    run = fit("unireplknet_a", "digits", out=out / "run", smoke=smoke)
    model, task, info = load_run(run.folder)
    fused = seewide.fuse(model)
    samples, held_out = task.held_out(info.data, info.facts, trained_on=info.data)
    loader, _ = make_eval_loader(samples, task, info.preprocess, len(samples), workers=0)
    x, y = next(iter(loader)).values()
    names, images = info.facts["class_names"], [sample["image"] for sample in samples]
    report = Report("Handwritten digits, seen wide", f"{info.model}; {held_out}.", echo=print)
    report.section("Training", f"{len(run.history)} epochs, from random weights.")
    report.figure(run.folder / "curves.png", "Loss and accuracy over the epochs.")
    share = sections.predictions(report, out, fused, x, y, names, images)

    report.section("Fusing")
    sections.forms(report, {"unfused": model, "fused": fused}, x)
    exported = export_model(model, out / "digits.onnx", "onnx", x[:4], info.header())
    report.section("Export", "Reloaded by ONNX Runtime and compared with the model:", str(exported))

    def stock() -> None:
        with seewide.use_backend("torch"):
            fused(image)

    image = torch.randn(1, 3, 224, 224)
    calls = {"unfused": lambda: model(image), "fused": lambda: fused(image)}
    report.section("Speed", "One 224 x 224 image, in turns, in one run.")
    sections.speed(report, out, {"fused, stock convolutions": stock, **calls}, 3 if smoke else 15)

    report.section("What it sees")
    networks = {"before training": timm.create_model(info.model), "after training": model}
    sections.receptive_fields(report, out, networks, x, Protocol(8 if smoke else 40, side=128))
    print(f"\nThe report with all figures: {report.save(out / 'report.html')}")
    if share < 0.97 and not smoke:
        raise SystemExit(f"{share:.1%} of the digits are recognized, at least 97% were expected")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--smoke", action="store_true", help="a run of seconds")
    main(**vars(parser.parse_args()))
