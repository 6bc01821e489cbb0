"""What the page rounds, the files keep."""

import csv
import json

import pytest
from PIL import Image

from seewide.analysis.workbook import Workbook
from seewide.errors import InputError


def test_files_hold_all_digits_and_the_page_three(tmp_path):
    book = Workbook("Title", "lead", tmp_path / "out")
    rows = [("a", 1234.5678, 0.0123456), ("b", float("nan"), 3)]
    book.keep_table("cost", ("network", "x", "y"), rows)
    book.keep_table("hidden", ("only",), [("in files",)], shown=False)
    page = book.close().read_text("utf-8")
    for cell in ("1235", "0.0123", "<td>-</td>", "<td>3</td>"):
        assert cell in page
    assert "in files" not in page
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert numbers["cost"] == [
        ["network", "x", "y"], ["a", 1234.5678, 0.0123456], ["b", None, 3],
    ]  # fmt: skip
    with (tmp_path / "out" / "hidden.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["only"], ["in files"]]


def test_a_figure_is_drawn_in_both_forms(tmp_path):
    drawn = []

    def draw(path):
        drawn.append(path.name)
        Image.new("RGB", (4, 4)).save(path, "PNG")
        return path

    book = Workbook("Title", "lead", tmp_path)
    book.keep_figure("curves of a/b", draw, "caption")
    assert drawn == ["curves-of-a-b.svg", "curves-of-a-b.png"]
    assert book.html().count("data:image/png") == 1
    with pytest.raises(InputError, match="a row of this table has 2 cells"):
        book.keep_table("t", ("a", "b"), [("only",)])
