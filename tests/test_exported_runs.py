"""Exported files as targets of `predict` and `eval`, and int8 and bundles from the command line."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from PIL import Image
from rich.console import Console

from seewide.errors import InputError
from seewide.export import export_int8, load_exported
from seewide.recipes import get
from seewide.train import Predictor, evaluate, fit, load_run


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on digits, trained enough that int8 has something to agree with."""
    folder = tmp_path_factory.mktemp("run") / "digits"
    fit("test_convnext", "digits", out=folder, smoke=True, console=Console(quiet=True))
    return folder


@pytest.fixture(scope="module")
def digit(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "digit.png"
    Image.new("L", (8, 8), 200).save(path)
    return path


@pytest.mark.parametrize("format", ["onnx", "pt2", "openvino"])
def test_predict_and_eval_take_the_file(command, run, digit, tmp_path, format):
    module = {"openvino": "openvino", "pt2": "torch"}.get(format, "onnxruntime")
    pytest.importorskip(module)
    suffix = {"openvino": "xml", "pt2": "pt2"}.get(format, "onnx")
    path = tmp_path / f"model.{suffix}"
    done = command("export", run, "--format", format, "--out", path)
    assert done.exit_code == 0, done.output
    result = command("predict", path, digit, "--out", tmp_path / "out.json")
    assert result.exit_code == 0, result.output
    (found,) = json.loads((tmp_path / "out.json").read_text())
    (want,) = [p.description["classes"] for p in Predictor(run)(digit)]
    assert found["classes"][0]["name"] == want[0]["name"]
    assert found["classes"][0]["probability"] == pytest.approx(want[0]["probability"], abs=1e-4)
    if format == "onnx":
        result = command("eval", path, "--out", tmp_path / "eval")
        assert result.exit_code == 0, result.output
        scores = json.loads((tmp_path / "eval" / "scores.json").read_text())
        assert scores["samples"] == 359
        expected = evaluate(str(run), console=Console(quiet=True)).models[-1].scores
        assert scores["scores"]["onnx"] == pytest.approx(expected, abs=1e-3)
        assert scores["deviation"] is None


def test_files_that_do_not_fit_are_sentences(command, run, digit, tmp_path):
    pytest.importorskip("onnxruntime")
    from seewide.export import export_model

    model, task, info = load_run(run)
    example = task.example(info.facts, info.preprocess)
    export_model(model, tmp_path / "bare.onnx", "onnx", example)
    (tmp_path / "broken.onnx").write_bytes(b"no ONNX")
    good = tmp_path / "good.onnx"
    assert command("export", run, "--out", good, "--for", "onnxruntime").exit_code == 0
    for words, sentence in (
        (("predict", tmp_path / "bare.onnx", digit), "does not say its task"),
        (("predict", tmp_path / "broken.onnx", digit), "no ONNX file that runs here"),
        (("predict", tmp_path / "none.onnx", digit), "there is no exported network"),
        (("eval", good, "--image-size", 48), "takes images of shape"),
        (("eval", good, "--device", "cuda"), "exported files run on the cpu"),
        (("export", run, "--format", "onnx_int8", "--free-size"), "takes neither"),
    ):
        result = command(*words)
        assert result.exit_code == 2, words
        assert sentence in result.stderr


@pytest.mark.slow
def test_int8_of_a_trained_run_is_calibrated_on_its_own_images(command, digit, tmp_path):
    pytest.importorskip("onnxruntime")
    recipe = replace(get("digits"), epochs=6)
    fit("test_convnext", "digits", recipe, tmp_path / "run", console=Console(quiet=True))
    done = command("export", tmp_path / "run", "--format", "onnx_int8")
    assert done.exit_code == 0, done.output
    assert "answers as in float32, accuracy" in done.output
    path = tmp_path / "run" / "test_convnext.int8.onnx"
    assert command("predict", path, digit).exit_code == 0


@pytest.mark.slow
def test_the_bundle_of_a_run(command, run, tmp_path):
    pytest.importorskip("onnxruntime")
    result = command("export", run, "--bundle", tmp_path / "bundle")
    assert result.exit_code == 0, result.output
    assert "model.onnx" in result.output
    files = {path.name for path in (tmp_path / "bundle").iterdir()}
    assert {"model.onnx", "predict.py", "serve.py", "index.html", "labels.txt"} <= files


@pytest.mark.slow
def test_openvino_int8_agrees_and_has_its_facts(run, tmp_path):
    pytest.importorskip("openvino")
    pytest.importorskip("nncf")
    model, _, info = load_run(run)
    images = torch.randn(16, 3, 32, 32)
    path = tmp_path / "model.xml"
    report = export_int8(
        model, path, "openvino_int8", images, info.header(), labels=[0] * 16, least_agreement=0.5
    )
    assert 0.5 <= report.agreement <= 1
    assert report.accuracy is not None
    exported = load_exported(path)
    assert exported.metadata["precision"] == "int8"
    assert json.loads(exported.metadata["facts"]) == info.facts
    with torch.no_grad():
        same = (exported(images)[0].argmax(1) == model(images).argmax(1)).float().mean()
    assert same >= 0.5
    with pytest.raises(InputError, match=r"only .*% of the answers"):
        export_int8(model, tmp_path / "b.xml", "openvino_int8", images, least_agreement=1.01)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.bin", "model.xml"]


@pytest.mark.slow
def test_predict_on_500_mixed_files_ends_with_a_table_and_the_names(command, run, tmp_path):
    """Images in folders, broken ones, one of 400 million pixels, text and hidden files."""
    folder = tmp_path / "mixed"
    for name in ("a", "b c", "ü"):
        (folder / name).mkdir(parents=True)
    kinds = (".png", ".jpg", ".bmp", ".gif", ".webp")
    for index in range(430):
        place = folder / ("a", "b c", "ü")[index % 3] / f"{index}{kinds[index % 5]}"
        Image.new("RGB", (8 + index % 40, 30), (index % 256, 90, 200)).save(place)
    for index in range(40):
        (folder / "a" / f"broken{index}.jpg").write_bytes(b"\xff\xd8\xff" + bytes(index))
    Image.new("1", (20_000, 20_000)).save(folder / "huge.png")
    for index in range(28):
        (folder / "b c" / f"notes{index}.txt").write_text("not an image")
    (folder / ".hidden.png").write_bytes(b"")
    out = tmp_path / "out.csv"
    result = command("predict", run, folder, "--out", out)
    assert result.exit_code == 2
    assert "Traceback" not in result.output
    lines = out.read_text(encoding="utf-8").splitlines()
    assert len(lines) == 1 + 430
    assert lines[0].startswith("file,classes 1 name,classes 1 probability")
    assert "huge.png" in result.stderr
    for index in range(40):
        assert f"broken{index}.jpg" in result.stderr
    assert ".hidden" not in result.output
