"""`make demo`: UniRepLKNet-A learns the bundled digits, is merged, exported, timed, explained."""

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
from seewide.train.evaluate import held_out, make_eval_loader


def main(out: Path, fast: bool) -> None:
    shutil.rmtree(out, ignore_errors=True)
    run = fit("unireplknet_a", "digits", out=out / "run", fast=fast)
    model, info = load_run(run.folder)
    merged = seewide.fuse(model)
    split, origin = held_out(info, None)
    x, y = next(iter(make_eval_loader(split, info, len(split), workers=0)))

    report = Report("Handwritten digits, seen wide", f"{info.model}; {origin}.", echo=print)
    report.section("Training", f"{len(run.history)} epochs, from random weights.")
    report.figure(run.folder / "curves.png", "Loss and accuracy over the epochs.")
    share = sections.predictions(report, out, merged, x, y, info.class_names, split.pictures)

    report.section("Merging")
    sections.forms(report, {"training form": model, "merged": merged}, x)
    exported = export_model(model, out / "digits.onnx", "onnx", x[:4], info.header())
    report.section("Export", "Read back by ONNX Runtime, compared with the model:", str(exported))

    def stock() -> None:
        with seewide.use_backend("torch"):
            merged(photo)

    photo = torch.randn(1, 3, 224, 224)
    calls = {"training form": lambda: model(photo), "merged": lambda: merged(photo)}
    report.section("Speed", "One 224 x 224 image, in turns, in one run.")
    sections.speed(report, out, {"merged, stock convolutions": stock, **calls}, 3 if fast else 15)

    report.section("What it sees")
    networks = {"before training": timm.create_model(info.model), "after training": model}
    sections.receptive_fields(report, out, networks, x, Protocol(8 if fast else 40, side=128))
    print(f"\nAll of it, with the pictures: {report.save(out / 'report.html')}")
    if share < 0.97 and not fast:
        raise SystemExit(f"{share:.1%} of the digits are right, 97% were expected")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"))
    parser.add_argument("--fast", action="store_true", help="a smoke run of seconds")
    main(**vars(parser.parse_args()))
