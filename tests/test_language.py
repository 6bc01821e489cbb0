"""The prose is that of PyTorch's and timm's documentation: no private vocabulary.

The words below were once used for things that have ordinary names. They are looked for in the
package, its documentation and its tests' names, outside code of other libraries.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# What not to write, and what to write instead.
INSTEAD = {
    r"photographs?": "image",
    r"pictures?": "image; figure or plot for what we draw",
    r"rivals?": "baseline",
    r"twins?": "smoke test, or what it is",
    r"guilty": "first_nonfinite_microbatch",
    r"endures?": "should_continue",
    r"no number": "NaN or infinite",
    r"is no number": "is NaN or infinite",
    r"training forms?": "unfused model",
    r"merged forms?": "fused model",
    r"merge(?:s|d)? (?:branches|networks?|models?|forms?)": "fuse",
    r"underway": "in progress",
    r"the rooms? of the house": "packages and allowed imports",
    r"taught recipes?": "distillation recipes",
    r"pixel by pixel": "channels_last",
    r"right when said": "precision",
    r"telling apart": "classification",
    r"from_leader": "broadcast_from_main",
}
BANNED = re.compile(rf"\b(?:{'|'.join(INSTEAD)})\b", re.IGNORECASE)

# Quotations, and names of other libraries.
ALLOWED = ("ImageNet-Sketch", "Picture Archiving")

FILES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    ROOT / "SECURITY.md",
    *sorted((ROOT / "seewide").rglob("*.py")),
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "docs").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.py")),
]


def findings(text: str) -> list[str]:
    """`line number: word` for each word that is not to be written."""
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        for phrase in ALLOWED:
            line = line.replace(phrase, "")
        found += [f"{number}: {match[0]}" for match in BANNED.finditer(line)]
    return found


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("A picture of its Twin.", ["1: picture", "1: Twin"]),
        ("the loss became NaN\nthe rival's form", ["2: rival"]),
        ("an image of the fused model", []),
    ],
)
def test_the_check_finds_words(text, words):
    assert findings(text) == words


def test_no_private_vocabulary():
    found = [
        f"{path.relative_to(ROOT)}:{word}"
        for path in FILES
        for word in findings(path.read_text(encoding="utf-8"))
    ]
    assert not found, "\n".join(found)


def test_names_of_tests():
    names = [
        f"{path.name}:{name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for name in re.findall(r"^def (test_\w+)", path.read_text(encoding="utf-8"), re.M)
        if findings(name.replace("_", " "))
    ]
    assert not names, "\n".join(names)


def test_lines_of_the_documentation_wrap_at_100():
    long = [
        f"{path.relative_to(ROOT)}:{number}"
        for path in FILES
        if path.suffix == ".md" and path.name != "README.md"
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if len(line) > 100 and not re.search(r"^\||https?://|^!\[|^ {4}", line)
    ]
    assert not long, "\n".join(long)
