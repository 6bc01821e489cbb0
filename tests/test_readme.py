"""The README says what is true: its first block runs, its links lead somewhere."""

import re
from pathlib import Path

import seewide

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_first_block_runs():
    block = re.search(r"```python\n(.*?)```", README, re.DOTALL)[1]
    names = {}
    exec(block, names)
    assert names["logits"].shape == (2, 10)


def test_links_lead_somewhere():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    dead = []
    for page in pages:
        for link in re.findall(r"\]\(([^)#]+)", page.read_text()):
            if not link.startswith("http") and not (page.parent / link).exists():
                dead.append(f"{page.name}: {link}")
    assert not dead


def test_every_family_is_in_the_table():
    families = {name.rpartition("_")[0].split("_")[0] for name in seewide.list_models()}
    table = " ".join(line for line in README.splitlines() if line.startswith("|"))
    assert not [family for family in families if f"`{family}_" not in table]
