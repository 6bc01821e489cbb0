"""The page of several networks: its files, and how it stands in a real browser."""

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

from seewide.analysis.comparison import Comparison
from seewide.analysis.images import list_pictures
from seewide.analysis.shape_bias import list_conflicts
from seewide.analysis.subject import Subject
from seewide.errors import InputError
from seewide.preprocess import Preprocess

COLOURS = ("red", "blue")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Pictures of two classes, and cue-conflict pictures."""
    folder = tmp_path_factory.mktemp("data")
    noise = np.random.default_rng(0)
    for label, colour in enumerate(COLOURS):
        (folder / "pictures" / colour).mkdir(parents=True)
        for number in range(2):
            pixels = noise.integers(0, 120, (40, 40, 3), np.uint8)
            pixels[..., 2 * label] += 120
            Image.fromarray(pixels).save(folder / "pictures" / colour / f"{number}.png")
    (folder / "conflict" / "cat").mkdir(parents=True)
    for texture in ("dog", "car", "oven"):
        path = folder / "conflict" / "cat" / f"cat1-{texture}1.png"
        Image.new("RGB", (40, 40), (9, 99, 200)).save(path)
    return folder


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    """Everything on it: a run with curves, a network of 16 classes, an untrained one."""
    curves = [{"epoch": e, "train_loss": 1 / e, "val_top1": 10.0 * e} for e in (1, 2)]
    make = timm.create_model
    subjects = [
        Subject("a run", make("test_convnext", num_classes=2), Preprocess(32), trained=True,
                class_names=COLOURS, metrics=curves),
        Subject("of <16>", make("test_resnet", num_classes=16), Preprocess(32), trained=True),
        Subject("untrained", make("test_efficientnet", num_classes=2), Preprocess(32)),
    ]  # fmt: skip
    pictures = list_pictures(folder / "pictures")
    heard = []

    def progress(what, steps):
        heard.append([what, steps, 0])
        return lambda entry=heard[-1]: entry.__setitem__(2, entry[2] + 1)

    path = Comparison(
        subjects, tmp_path_factory.mktemp("report"), pictures[:2], field_side=64,
        conflicts=list_conflicts(folder / "conflict"),
        labelled=[(path, path.parent.name) for path in pictures], progress=progress,
    ).write()  # fmt: skip
    assert all(steps == done for _, steps, done in heard), "bars reach their end"
    return path


def test_figures_and_numbers_lie_beside_the_page(page):
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


def test_the_page_says_what_was_not_measured(page):
    words = html.unescape(page.read_text("utf-8"))
    assert "<code>untrained</code>: not measured, its weights are random." in words
    assert "neither among 1000 nor among the 16 classes" in words
    assert "its classes are not those of the pictures" in words
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
def test_a_browser_shows_it(page, chromium, tmp_path, width):
    """Renders without console errors, nothing overflows, pictures load, headings sort."""
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


def test_on_a_phone_nothing_overflows(page, chromium, tmp_path):
    """390 px, narrower than a browser's own window may be: inside a frame."""
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


def test_bad_input_is_one_sentence(folder, tmp_path):
    model, pictures = timm.create_model("test_convnext"), list_pictures(folder)
    with pytest.raises(InputError, match=r"different names, got \['a', 'a'\]"):
        Comparison([Subject("a", model), Subject("a", model)], tmp_path, pictures)
    with pytest.raises(InputError, match="different names, got"):
        Comparison([], tmp_path, pictures)
    with pytest.raises(InputError, match="photographs for the receptive fields, got none"):
        Comparison([Subject("a", model)], tmp_path, [])
