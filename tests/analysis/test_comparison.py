"""The page of several models: its files, its text, and its layout in a browser."""

import csv
import html
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
import timm
from PIL import Image

from seewide.analysis.analyzed_model import AnalyzedModel
from seewide.analysis.comparison import Comparison
from seewide.analysis.images import list_images
from seewide.analysis.shape_bias import list_cue_conflicts
from seewide.errors import InputError
from seewide.preprocess import Preprocess

COLORS = ("red", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images of two classes, and cue-conflict images."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0)
    for label, color in enumerate(COLORS):
        (folder / "images" / color).mkdir(parents=True)
        for number in range(2):
            pixels = noise.integers(0, 120, (40, 40, 3), np.uint8)
            pixels[..., 2 * label] += 120
            Image.fromarray(pixels).save(folder / "images" / color / f"{number}.png")
    (folder / "conflict" / "cat").mkdir(parents=True)
    for texture in ("dog", "car", "oven"):
        path = folder / "conflict" / "cat" / f"cat1-{texture}1.png"
        Image.new("RGB", (40, 40), (9, 99, 200)).save(path)
    return folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    """A page with a trained run, a model of 16 classes and an untrained model."""
    curves = [{"epoch": e, "train_loss": 1 / e, "val_top1": 10.0 * e} for e in (1, 2)]
    make = timm.create_model
    models = [
        AnalyzedModel("a run", make("test_convnext", num_classes=2), Preprocess(32), trained=True,
                class_names=COLORS, metrics=curves),
        AnalyzedModel("of <16>", make("test_resnet", num_classes=16), Preprocess(32), trained=True),
        AnalyzedModel("untrained", make("test_efficientnet", num_classes=2), Preprocess(32)),
    ]  # fmt: skip
    images = list_images(folder / "images")
    reported = []

    def progress(what, steps):
        reported.append([what, steps, 0])
        return lambda entry=reported[-1]: entry.__setitem__(2, entry[2] + 1)

    path = Comparison(
        models, tmp_path_factory.mktemp("report"), images[:2], erf_size=64,
        conflicts=list_cue_conflicts(folder / "conflict"),
        labeled=[(path, path.parent.name) for path in images], progress=progress,
    ).write()  # fmt: skip
    assert all(steps == done for _, steps, done in reported), "all progress is complete"
    return path


def test_figures_and_tables_are_written_to_files(page):
    numbers = json.loads((page.parent / "numbers.json").read_text())
    tables = {"cost", "split", "stages", "speed", "erf", "gaussian", "field-by-stage", "shape-bias",
              "corruptions"}  # fmt: skip
    assert set(numbers) == tables
    for name in tables:
        with (page.parent / f"{name}.csv").open(newline="") as file:
            rows = list(csv.reader(file))
        assert rows[0] == numbers[name][0]
        assert len(rows) == len(numbers[name]) > 1
    figures = {"split-macs", "split-parameters", "speed", "erf", "profiles", "shape-bias",
               "corruptions", "curves-a-run"}  # fmt: skip
    for suffix in (".png", ".svg"):
        assert {path.stem for path in page.parent.glob(f"*{suffix}")} == figures
    erf = {row[0]: row for row in numbers["erf"][1:]}
    assert set(erf) == {"a run", "of <16>", "untrained"}
    assert all(0 < row[1] <= row[4] <= 100 for row in erf.values())
    assert {row[0] for row in numbers["corruptions"][1:]} == {"a run"}
    assert {row[0] for row in numbers["shape-bias"][1:]} == {"of <16>"}


def test_the_page_says_what_was_not_measured_and_why(page):
    words = html.unescape(page.read_text("utf-8"))
    assert "<code>untrained</code>: not measured, its weights are random." in words
    assert "its classes are neither ImageNet's 1000 nor the 16" in words
    assert "its classes are not those of the images" in words
    assert "http" not in words
    assert words.count("<img") == 8


PROBE = """
<script>
addEventListener("load", () => {
  const root = document.documentElement, first = document.querySelector("table");
  const column = () => [...first.tBodies[0].rows].map(row => row.cells[2].textContent);
  const before = column(), button = first.tHead.rows[0].cells[2].firstChild;
  button.click(); const up = column(); button.click(); const down = column();
  document.title = "PROBE" + JSON.stringify({
    width: innerWidth, overflow: root.scrollWidth - innerWidth,
    wide: [...document.querySelectorAll("img, p, h1, h2, .scroll, figcaption")]
      .filter(e => e.getBoundingClientRect().right > innerWidth + 1).length,
    broken: [...document.images].filter(image => !image.naturalWidth).length,
    images: document.images.length, before, up, down,
  });
});
</script>
"""


@pytest.fixture(scope="module")
def chromium():
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium on this machine")


@pytest.mark.parametrize("width", [500, 1280])
def test_layout_in_a_browser(page, chromium, tmp_path, width):
    """No console errors, no overflow, all images load, and headings sort."""
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text("utf-8").replace("</body>", PROBE + "</body>"), "utf-8")
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", f"--window-size={width},900",
         f"--user-data-dir={tmp_path / 'profile'}", "--enable-logging=stderr", "--dump-dom",
         probed.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    complaints = [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert not complaints
    answer = re.search(r"<title>PROBE(.*?)</title>", done.stdout)
    assert answer, done.stderr[-2000:]
    seen = json.loads(html.unescape(answer[1]))
    assert seen["width"] == width
    assert seen["overflow"] <= 0
    assert seen["wide"] == 0
    assert seen["broken"] == 0
    assert seen["images"] == 8
    up = sorted(seen["before"], key=float)
    assert seen["up"] == up
    assert seen["down"] == up[::-1]


def test_no_overflow_on_a_phone(page, chromium, tmp_path):
    """In a frame of 390 px, since a browser window cannot be that narrow."""
    probed = tmp_path / "probed.html"
    probed.write_text(page.read_text("utf-8").replace("</body>", PROBE + "</body>"), "utf-8")
    outer = tmp_path / "outer.html"
    outer.write_text(
        '<iframe src="probed.html" width="390" height="800" style="border:0"></iframe><script>'
        'addEventListener("load", () => { document.title = frames[0].document.title; });</script>'
    )
    done = subprocess.run(
        [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom",
         "--allow-file-access-from-files", f"--user-data-dir={tmp_path / 'profile'}",
         outer.as_uri()],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    answer = re.search(r"<title>PROBE(.*?)</title>", done.stdout)
    assert answer, done.stdout[-500:] + done.stderr[-2000:]
    seen = json.loads(html.unescape(answer[1]))
    assert seen["width"] == 390
    assert seen["overflow"] <= 0
    assert seen["wide"] == 0


def test_bad_input(folder, tmp_path):
    model, images = timm.create_model("test_convnext"), list_images(folder)
    with pytest.raises(InputError, match=r"different names, got \['a', 'a'\]"):
        Comparison([AnalyzedModel("a", model), AnalyzedModel("a", model)], tmp_path, images)
    with pytest.raises(InputError, match="different names, got"):
        Comparison([], tmp_path, images)
    with pytest.raises(InputError, match="images for the receptive fields, got none"):
        Comparison([AnalyzedModel("a", model)], tmp_path, [])
