"""The files of a report folder."""

import csv
import json

import pytest
from PIL import Image

from seewide.analysis.report_folder import ReportFolder
from seewide.errors import InputError


def test_files_are_unrounded_and_the_page_is_rounded(tmp_path):
    report = ReportFolder("Title", "lead", tmp_path / "out")
    rows = [("a", 1234.5678, 0.0123456), ("b", float("nan"), 3)]
    report.save_table("cost", ("network", "x", "y"), rows)
    report.save_table("hidden", ("only",), [("in files",)], shown=False)
    page = report.close().read_text("utf-8")
    for cell in ("1235", "0.0123", "<td>-</td>", "<td>3</td>"):
        assert cell in page
    assert "in files" not in page
    numbers = json.loads((tmp_path / "out" / "numbers.json").read_text())
    assert numbers["cost"] == [
        ["network", "x", "y"], ["a", 1234.5678, 0.0123456], ["b", None, 3],
    ]  # fmt: skip
    with (tmp_path / "out" / "hidden.csv").open(newline="") as file:
        assert list(csv.reader(file)) == [["only"], ["in files"]]


def test_figures_are_written_as_png_and_svg(tmp_path):
    drawn = []

    def draw(path):
        drawn.append(path.name)
        Image.new("RGB", (4, 4)).save(path, "PNG")
        return path

    report = ReportFolder("Title", "lead", tmp_path)
    report.save_figure("curves of a/b", draw, "caption")
    assert drawn == ["curves-of-a-b.svg", "curves-of-a-b.png"]
    report.save_figure("curves of a b", draw, "caption")
    assert drawn[2:] == ["curves-of-a-b-2.svg", "curves-of-a-b-2.png"], "not overwritten"
    report.save_figure("x" * 300, draw, "caption")
    assert len(drawn[-1]) < 100
    assert report.html().count("data:image/png") == 3
    with pytest.raises(InputError, match="a row of this table has 2 cells"):
        report.save_table("t", ("a", "b"), [("only",)])
