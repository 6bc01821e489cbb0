"""The documentation as a web site: it builds without a warning, and no link in it is dead."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]


class Page(HTMLParser):
    """The links and anchors of a page."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.links += [values[name] for name in ("href", "src") if values.get(name)]
        self.anchors |= {values[name] for name in ("id", "name") if values.get(name)}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    for module in ("mkdocs", "material", "mkdocstrings"):
        if importlib.util.find_spec(module) is None:
            pytest.skip(f"{module} is not installed; `pip install seewide[docs]` brings it")
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)],
        cwd=ROOT, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


def dead_links(site: Path) -> list[str]:
    """Links of the site to files and anchors that are not there."""
    pages = {path.resolve(): Page(path) for path in site.rglob("*.html")}
    dead = []
    for path, page in pages.items():
        if path.name == "404.html":  # its links are absolute
            continue
        for link in page.links:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc or link.startswith("data:"):
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                dead.append(f"{path.relative_to(site.resolve())}: {link}")
            elif parts.fragment and target in pages:
                anchors = pages[target].anchors
                if unquote(parts.fragment) not in {*anchors, "__toc", "__search", "__nav"}:
                    dead.append(f"{path.relative_to(site.resolve())}: {link} (anchor)")
    return dead


def test_the_link_checker_finds_dead_links(tmp_path):
    (tmp_path / "a.html").write_text('<a href="b.html#x">x</a><a href="c.html">y</a><p id="q">')
    (tmp_path / "b.html").write_text('<a href="a.html#q">x</a><img src="https://x.y/z.png">')
    assert dead_links(tmp_path) == ["a.html: b.html#x (anchor)", "a.html: c.html"]


@pytest.mark.slow
def test_no_link_is_dead(site):
    assert not dead_links(site)


@pytest.mark.slow
def test_the_reference_has_the_public_functions(site):
    for page, names in {
        "ops": ("depthwise_conv2d", "peripheral_conv2d", "dcnv3"),
        "train": ("fit", "resume", "evaluate"),
        "export": ("export_model", "load_exported", "export_int8"),
        "hub": ("save_pretrained", "push_to_hub", "save_run"),
        "tasks": ("Task", "option"),
    }.items():
        text = (site / "api" / page / "index.html").read_text(encoding="utf-8")
        for name in names:
            assert f".{name}" in text, f"{page}: {name}"
    results = (site / "results" / "index.html").read_text(encoding="utf-8")
    assert results.count('<table class="sortable">') >= 10
