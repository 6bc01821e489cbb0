"""The documentation is true: links lead somewhere, generated tables are what the models count."""

import csv
import importlib.util
import re
import sys
from dataclasses import fields
from pathlib import Path

import pytest

from seewide.recipes import RECIPES, Recipe
from seewide.train import Runtime

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "benchmarks" / "README.md", *sorted(DOCS.rglob("*.md"))]
FAMILIES = ("unireplknet", "lsnet", "uniconvnet", "replknet", "slak", "pelk")


@pytest.fixture(scope="module")
def generate():
    sys.path.insert(0, str(DOCS))
    try:
        spec = importlib.util.spec_from_file_location("generate_docs", DOCS / "generate.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["generate_docs"] = module
        spec.loader.exec_module(module)
        yield module
    finally:
        sys.path.remove(str(DOCS))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        if "://" not in target:
            assert (page.parent / target).exists(), target


def table_rows():
    lines = (DOCS / "models" / "index.md").read_text().splitlines()
    return {cells[1].strip(" `"): line for line in lines if (cells := line.split("|"))[1:2]
            and line.startswith("| `")}  # fmt: skip


def test_every_large_difference_has_its_reason():
    reasons = (DOCS / "discrepancies.md").read_text()
    differing = [name for name, line in table_rows().items() if "%)" in line]
    assert differing
    for name in differing:
        assert f"`{name}`" in reasons, name


def test_papers_figures_belong_to_models_and_name_their_source():
    with (DOCS / "paper_figures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    names = [row["model"] for row in rows]
    assert len(set(names)) == len(names)
    assert set(names) <= set(table_rows())
    assert all(row["source"] for row in rows)


@pytest.mark.parametrize("name", ["unireplknet_a", "lsnet_t", "uniconvnet_a", "pelk_t_dense"])
def test_tables_are_current(generate, name):
    row = generate.count(name, generate.paper_figures().get(name, {}))
    line = f"| {' | '.join(row.cells())} |"
    assert line in (DOCS / "models" / "index.md").read_text()
    assert line in (DOCS / "models" / f"{generate.family_of(name)}.md").read_text()


@pytest.mark.slow
def test_all_tables_are_current(generate):
    page, paper = (DOCS / "models" / "index.md").read_text(), generate.paper_figures()
    for name in generate.seewide.list_models():
        assert f"| {' | '.join(generate.count(name, paper.get(name, {})).cells())} |" in page


def test_the_table_of_recipes_is_current(generate):
    page = (DOCS / "recipes.md").read_text()
    between = page.partition("<!-- recipes -->\n")[2].partition("<!-- end -->")[0]
    assert between.strip() == generate.recipes_table()
    for name in RECIPES:
        assert page.count(f"| `{name}` |") == 1


def test_the_reference_of_options_is_current(generate):
    """An option that is added to a dataclass appears in the documentation."""
    page = (DOCS / "options.md").read_text()
    between = page.partition("<!-- options -->\n")[2].partition("<!-- end -->")[0]
    assert between.strip() == generate.options_tables()
    for field in (*fields(Recipe), *fields(Runtime)):
        assert f"| `{field.name}`" in page


@pytest.mark.parametrize("what", ["bottleneck", "3, 15, 15, 15", "14 large, 13 small"])
def test_ablations_are_current_and_the_paper_s(generate, what):
    """One of each table: counts to half the last printed digit, and one more for the paper's."""
    tables = sys.modules["tables"]
    (row,) = [row for row in tables.paper_ablations() if row["what"] == what]
    cells = tables.ablation(row)
    assert f"| {' | '.join(cells)} |" in (DOCS / "models" / "unireplknet.md").read_text()
    _, _, millions, paper_millions, giga, paper_giga = cells
    assert float(millions) == pytest.approx(float(paper_millions), abs=0.101)
    assert float(giga) == pytest.approx(float(paper_giga), abs=0.0101)


def test_uniconvnet_s_parts_are_the_authors(generate):
    tables = sys.modules["tables"]
    page = (DOCS / "models" / "uniconvnet.md").read_text()
    for name, authors in tables.AUTHORS_PARTS.items():
        parts = tables.parts_of(name)
        assert parts == pytest.approx(authors, abs=0.0101)
        assert f"| `{name}` | {' | '.join(f'{part:.2f}' for part in parts)} |" in page


def test_figure_6_is_current(generate):
    """PeLK's parameters stay nearly level while a dense kernel's explode."""
    rows = sys.modules["curves"].parameters_by_kernel()
    with (DOCS / "figures" / "pelk-figure-6.csv").open(newline="") as file:
        written = [{k: float(v) for k, v in row.items()} for row in csv.DictReader(file)]
    assert written == [{k: round(v, 2) for k, v in row.items()} for row in rows]
    last = rows[-1]
    assert last["dense"] > 6 * rows[0]["dense"]
    assert last["peripheral"] < 1.06 * rows[0]["peripheral"]
    assert last["peripheral"] < last["strips"] < last["dense"]


@pytest.mark.parametrize("family", FAMILIES)
def test_examples_of_the_pages_run(family, capsys):
    page = (DOCS / "models" / f"{family}.md").read_text()
    (example,) = re.findall(r"```python\n(.*?)```", page, re.S)
    exec(compile(example, f"{family}.md", "exec"), {})


@pytest.mark.parametrize("family", FAMILIES)
def test_every_page_shows_its_block(family):
    assert f"figures/block-{family}.svg" in (DOCS / "models" / f"{family}.md").read_text()
