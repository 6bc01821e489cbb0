"""The page is parsed by the standard library's reader, and must need nothing but itself."""

import base64
from html.parser import HTMLParser

import pytest

from seewide.analysis.report import Report
from seewide.errors import InputError

VOID = {"meta", "img"}


class Reader(HTMLParser):
    """Collects tags with their attributes and text, and checks that what opens is closed."""

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
def picture(tmp_path):
    path = tmp_path / "dot.png"
    path.write_bytes(b"\x89PNG not really, but bytes are bytes")
    return path


def test_the_page_holds_everything_and_fetches_nothing(tmp_path, picture):
    report = Report("Digits & <friends>", "The lead.")
    report.section("One", "With `code <b>` in it.", "Second paragraph.")
    report.figure(picture, 'A "dot".')
    report.table(["form", "top-1"], [["training", 98.5], ["merged", "98.5%"]])
    page = report.save(tmp_path / "out" / "report.html").read_text("utf-8")
    reader = Reader(page)

    (image,) = [attributes for tag, attributes in reader.tags if tag == "img"]
    kind, _, data = image["src"].partition(";base64,")
    assert kind == "data:image/png"
    assert base64.b64decode(data) == picture.read_bytes()
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


def test_a_terminal_hears_the_same_words(picture):
    lines = []
    report = Report("x", echo=lines.append)
    report.section("Speed", "With `fuse` it is fast.")
    report.figure(picture, "not for a terminal")
    report.table(["form", "ms"], [["training", 12], ["merged", "3"]])
    assert lines == [
        "\nSpeed\n-----", "With fuse it is fast.",
        "form      ms", "training  12", "merged     3",
    ]  # fmt: skip


def test_bad_input_is_one_sentence(tmp_path):
    report = Report("x")
    with pytest.raises(InputError, match=r"ends in .png, .jpg, .svg, got .*a.bmp"):
        report.figure(tmp_path / "a.bmp", "")
    with pytest.raises(InputError, match=r"could not read the figure .*none.png: No such file"):
        report.figure(tmp_path / "none.png", "")
    with pytest.raises(InputError, match=r"has 2 cells, got \['a'\]"):
        report.table(["a", "b"], [["a"]])
