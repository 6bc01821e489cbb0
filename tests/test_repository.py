"""What contributors and the host read: workflows, templates, metadata of the package."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml")

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PROJECT = (ROOT / "pyproject.toml").read_text()
PYTHONS = re.findall(r'"Programming Language :: Python :: (3\.\d+)"', PROJECT)


def load(path: Path) -> dict:
    content = yaml.safe_load(path.read_text())
    content["on"] = content.pop(True, content.get("on"))  # YAML 1.1 reads `on` as a boolean
    return content


def steps(workflow: dict):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_workflows_match_the_schema():
    pytest.importorskip("check_jsonschema")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema"]
    for schema, files in (
        ("vendor.github-workflows", WORKFLOWS),
        ("vendor.github-issue-forms", sorted(ROOT.glob(".github/ISSUE_TEMPLATE/[!c]*.yml"))),
    ):
        try:
            done = subprocess.run([*command, schema, *map(str, files)], capture_output=True)
        except OSError as error:
            pytest.skip(str(error))
        output = done.stdout.decode() + done.stderr.decode()
        if "Unknown" in output or "invalid choice" in output or "is not one of" in output:
            continue  # a version without this schema
        assert done.returncode == 0, output


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_run_targets_and_files_that_exist(path):
    workflow = load(path)
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step)
        for target in re.findall(r"\bmake ([a-z-]+)", step.get("run", "")):
            assert target in targets
    for job in workflow["jobs"].values():
        assert set([job["needs"]] if "needs" in job else []) <= set(workflow["jobs"])
    assert workflow["permissions"] == {"contents": "read"}  # more only where a job asks


def test_every_supported_python_is_tested():
    jobs = load(ROOT / ".github" / "workflows" / "test.yml")["jobs"]
    matrix = jobs["test"]["strategy"]["matrix"]
    assert matrix["python"] == PYTHONS
    systems = {*matrix["os"], *(entry["os"] for entry in matrix["include"])}
    assert systems == {"ubuntu-latest", "macos-latest", "windows-latest"}
    least = re.search(r'requires-python = ">=(3\.\d+)"', PROJECT)[1]
    assert PYTHONS[0] == least


def test_releases_need_no_token():
    workflow = load(ROOT / ".github" / "workflows" / "release.yml")
    publish = [s for s in steps(workflow) if "pypi-publish" in s.get("uses", "")]
    assert len(publish) == 2
    assert "secrets." not in (ROOT / ".github" / "workflows" / "release.yml").read_text()
    for name in ("testpypi", "pypi"):
        assert workflow["jobs"][name]["permissions"] == {"id-token": "write"}


def test_the_table_of_versions_is_that_of_the_package():
    page = (ROOT / "docs" / "versioning.md").read_text()
    rows = {r[0]: r[1] for r in re.findall(r"^\| (\S+)[^|]* \| ([\d.]+) \|", page, re.M)}
    assert rows["Python"] == PYTHONS[0]
    for package in ("torch", "timm"):
        assert rows[package] == re.search(rf'"{package}>=([\d.]+)"', PROJECT)[1]


def test_the_package_is_marked_as_typed():
    assert (ROOT / "seewide" / "py.typed").is_file()
    assert 'seewide = ["py.typed"]' in PROJECT
