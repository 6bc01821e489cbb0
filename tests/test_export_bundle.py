"""The bundle runs where neither torch nor this package is, and gives the same answers."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from seewide.errors import InputError
from seewide.export.bundle import WEB_FILES, bundle
from seewide.preprocess import Preprocess
from seewide.reparam import randomize

pytest.importorskip("onnxruntime")
LABELS = [f"class {i}" for i in range(5)]


@pytest.fixture(scope="module")
def model():
    return randomize(timm.create_model("test_convnext", num_classes=5), seed=3).eval()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("bundle") / "net"
    how = Preprocess(image_size=48, crop_pct=0.9, mean=(0.4, 0.5, 0.6), std=(0.2, 0.2, 0.3))
    images = [torch.randn(3, 48, 48) + i % 5 for i in range(8)]
    bundle(model, folder, "net", LABELS, how.to_dict(), {"top1": "0.9"}, calibration=images)
    return folder


# Runs predict.py as `python predict.py` would, where importing torch or seewide fails.
ISOLATED = """
import runpy, sys
for name in ("torch", "seewide", "timm", "torchvision"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def test_predict_without_torch_gives_the_models_answers(model, folder, tmp_path):
    rng = np.random.default_rng(0)
    paths, wanted = [], []
    how = Preprocess.from_dict(json.loads((folder / "preprocess.json").read_text()))
    for i, size in enumerate([(48, 48), (100, 61), (33, 90), (20, 20), (641, 480)]):
        path = tmp_path / f"{i}.png"
        coarse = Image.fromarray(rng.integers(0, 256, (9, 9, 3), dtype=np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
        x = how.transform()(Image.open(path).convert("RGB"))
        with torch.no_grad():
            wanted.append(model(x[None]).softmax(1)[0])
        paths.append(str(path))
    command = [sys.executable, "-I", "-c", ISOLATED, str(folder / "predict.py"), *paths]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for line, path, want in zip(done.stdout.splitlines(), paths, wanted, strict=True):
        name, *classes = line.split("\t")
        assert name == path
        got = {label.rpartition(" ")[0]: float(label.rpartition(" ")[2][:-1]) for label in classes}
        assert next(iter(got)) == LABELS[int(want.argmax())]
        for index, label in enumerate(LABELS):
            assert got[label] == pytest.approx(100 * want[index].item(), abs=0.11)


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(48, 48), (101, 64), (30, 77), (12, 9)])
def test_preprocessing_is_that_of_the_package(folder, tmp_path, mode, size, monkeypatch):
    import importlib.util

    how = Preprocess(image_size=40, crop_pct=0.875, crop_mode=mode)
    for file in ("predict.py", "labels.txt"):
        (tmp_path / file).write_bytes((folder / file).read_bytes())
    (tmp_path / "preprocess.json").write_text(json.dumps(how.to_dict()))
    spec = importlib.util.spec_from_file_location("bundled_predict", tmp_path / "predict.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    want = how.transform()(image).numpy()
    assert np.abs(module.preprocess(image)[0] - want).max() < 1e-5


def test_the_triton_repository_fits_the_file(folder):
    import onnxruntime

    text = (folder / "triton/net/config.pbtxt").read_text()
    session = onnxruntime.InferenceSession(folder / "triton/net/1/model.onnx")
    (image,), (output,) = session.get_inputs(), session.get_outputs()
    found = re.findall(r'name: "(\w+)", data_type: TYPE_FP32, dims: \[ ([\d, ]+) \]', text)
    assert found == [
        (image.name, ", ".join(map(str, image.shape[1:]))),
        (output.name, str(output.shape[1])),
    ]
    assert image.type == output.type == "tensor(float)"
    assert isinstance(image.shape[0], str), "Triton needs a free batch for max_batch_size"
    labels = (folder / "triton/net/labels.txt").read_text().splitlines()
    assert labels == LABELS
    assert session.get_modelmeta().custom_metadata_map["top1"] == "0.9"


def test_the_readme_has_the_measured_table(folder):
    text = (folder / "README.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| model")]
    assert [row.split(" | ")[0].strip("| ") for row in rows][:2] == ["model.onnx", "model.web.onnx"]
    for row in rows:
        megabytes, milliseconds = row.split(" | ")[1], row.split(" | ")[3].strip("| ")
        assert float(megabytes) > 0
        assert float(milliseconds) > 0
    assert (folder / "model.int8.onnx").is_file() != ("There is no int8 file" in text)
    assert "npm install onnxruntime-web" in text


def test_the_page_loads_nothing_from_elsewhere(folder):
    page = (folder / "index.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    assert all(f"{name}" in ("".join(WEB_FILES)) for name in re.findall(r'src="ort/([^"]+)"', page))


def test_refusals_leave_nothing_behind(model, tmp_path):
    how = Preprocess(image_size=48).to_dict()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        bundle(model, tmp_path / "full", "net", LABELS, how)
    with pytest.raises(InputError, match="a model name has letters"):
        bundle(model, tmp_path / "new", 'a"b', LABELS, how)
    with pytest.raises(InputError, match="one of them has a line break"):
        bundle(model, tmp_path / "new", "net", ["a\nb"] * 5, how)
    with pytest.raises(InputError, match="is no dist folder of onnxruntime-web"):
        bundle(model, tmp_path / "new", "net", LABELS, how, onnxruntime_web=tmp_path)
    with pytest.raises(InputError, match=r"returns \(1, 5\), and there are 4 labels"):
        bundle(model, tmp_path / "new", "net", LABELS[:4], how)
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


@pytest.mark.slow
def test_the_server_answers_and_refuses(folder, tmp_path):
    pytest.importorskip("litserve")
    pytest.importorskip("python_multipart")
    import io
    import socket
    import time
    import urllib.error
    import urllib.request

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "serve.py", str(port)]
    server = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    url = f"http://127.0.0.1:{port}/predict"

    def raw(body, kind):
        request = urllib.request.Request(url, body, {"Content-Type": kind})
        try:
            with urllib.request.urlopen(request, timeout=60) as got:
                return got.status, json.loads(got.read())
        except urllib.error.HTTPError as error:
            with error:
                return error.code, None

    def post(data, field="image"):
        body = b"--x\r\nContent-Disposition: form-data; name=" + field.encode()
        body += b'; filename="a"\r\n\r\n' + data + b"\r\n--x--\r\n"
        return raw(body, "multipart/form-data; boundary=x")

    try:
        for _ in range(120):
            try:
                with socket.create_connection(("127.0.0.1", port), timeout=1):
                    break
            except OSError:
                time.sleep(1)
        buffer = io.BytesIO()
        Image.new("RGB", (60, 50), (200, 10, 10)).save(buffer, "PNG")
        status, answer = post(buffer.getvalue())
        assert status == 200
        assert len(answer["classes"]) == 5
        assert post(b"not an image")[0] == 400
        assert post(buffer.getvalue()[:40])[0] == 400
        assert post(buffer.getvalue(), "other")[0] == 422
        assert post(b"x" * 20_000_001)[0] == 413
        assert raw(b"[", "application/json")[0] == 415
        assert raw(b"--y\r\n", "multipart/form-data; boundary=x")[0] in (400, 422)
        assert raw(b"nothing", "multipart/form-data")[0] == 400
        assert post(buffer.getvalue())[0] == 200, "it still answers"
    finally:
        server.terminate()
        server.wait(30)
