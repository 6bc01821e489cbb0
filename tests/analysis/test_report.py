"""The page is valid HTML, loads no other file and escapes all text."""

import base64
from html.parser import HTMLParser

import pytest

from seewide.analysis.report import Report, code
from seewide.errors import InputError, printable

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects tags with their attributes and text, and checks that all tags are closed."""

    def __init__(self, page):
        super().__init__()
        self.open, self.tags, self.words = [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.words.append(data)


@pytest.fixture
def figure(tmp_path):
    path = tmp_path / "dot.png"
    path.write_bytes(b"\x89PNG not really, but bytes are bytes")
    return path


def test_the_page_contains_everything_and_loads_nothing(tmp_path, figure):
    report = Report("Digits & <friends>", "The lead.")
    report.section("One", "With `code <b>` in it.", "Second paragraph.")
    report.figure(figure, 'A "dot".')
    report.table(["model", "top-1"], [["training", 98.5], ["fused", "98.5%"]])
    page = report.save(tmp_path / "out" / "report.html").read_text("utf-8")
    reader = Reader(page)

    (image,) = [attributes for tag, attributes in reader.tags if tag == "img"]
    kind, _, data = image["src"].partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(data) == figure.read_bytes()
    assert image["alt"] == 'A "dot".'
    assert {tag for tag, _ in reader.tags}.isdisjoint({"link", "iframe", "b"})
    assert [a for tag, a in reader.tags if tag == "script"] == [{}], "one, of its own"
    assert not [a for _, a in reader.tags if "href" in a or a.get("src", "data:")[:5] != "data:"]
    assert "http" not in page
    assert "url(" not in page
    words = "".join(reader.words)
    for text in ("Digits & <friends>", "The lead.", "code <b>", "98.5%", "Second paragraph."):
        assert text in words
    assert sum(tag == "td" for tag, _ in reader.tags) == 4
    assert "prefers-color-scheme: dark" in page


def test_echo_receives_the_text(figure):
    lines = []
    report = Report("x", echo=lines.append)
    report.section("Speed", "With `fuse` it is fast.")
    report.figure(figure, "not for a terminal")
    report.table(["model", "ms"], [["training", 12], ["fused", "3"]])
    assert lines == [
        "\nSpeed\n-----", "With fuse it is fast.",
        "model     ms", "training  12", "fused      3",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "name", ["[red]", "$\\frac$", "a\x1b[31m", "a\nb", "\udcff.png", "<b>&`x`"]
)
def test_names_are_shown_literally(tmp_path, figure, name):
    lines = []
    report = Report(name, name, echo=lines.append)
    report.section(name, f"{code(name)}: measured.")
    report.figure(figure, name)
    report.table(["model", name], [[name, 1]])
    page = report.save(tmp_path / "report.html").read_text("utf-8")
    shown = printable(name)
    reader = Reader(page)
    assert "".join(reader.words).count(shown.replace("`", "")) >= 6
    assert [a["alt"] for tag, a in reader.tags if tag == "img"] == [shown]
    assert "b" not in {tag for tag, _ in reader.tags}
    assert not set(page + "".join(lines)) & {"\x1b", "\udcff"}
    assert "a\nb" not in page


def test_bad_input(tmp_path):
    report = Report("x")
    with pytest.raises(InputError, match=r"ends in .png, .jpg, .svg, got .*a.bmp"):
        report.figure(tmp_path / "a.bmp", "")
    with pytest.raises(InputError, match=r"could not read the figure .*none.png: No such file"):
        report.figure(tmp_path / "none.png", "")
    with pytest.raises(InputError, match=r"has 2 cells, got \['a'\]"):
        report.table(["a", "b"], [["a"]])
