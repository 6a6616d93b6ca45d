"""What a visitor of the repository finds: true, and of one piece with the package."""

import tomllib
from pathlib import Path

import yaml

from jaxgen import __version__
from jaxgen.models.catalogue import SHIPPED

ROOT = Path(__file__).resolve().parents[2]


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert str(citation["version"]) == __version__
    assert citation["license"] == project["license"]
    assert {"cff-version", "message", "title", "authors"} <= set(citation)


def test_the_table_of_weights_lists_what_is_shipped():
    page = (ROOT / "docs/pages/weights.md").read_text()
    named = {line.split("`")[1] for line in page.splitlines() if line.startswith("| `")}
    assert named == set(SHIPPED) - {"toy2d/gan"}  # a second name of toy2d/gan-15000


def test_issue_templates_ask_for_what_is_needed():
    forms = sorted((ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert len(forms) == 2
    for form in forms:
        data = yaml.safe_load(form.read_text())
        assert data["name"]
        assert any(part.get("validations", {}).get("required") for part in data["body"])


def test_the_comparison_has_a_full_row_of_plain_words_for_everything():
    text = (ROOT / "README.md").read_text().split("## How it compares")[1].split("## Goals")[0]
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    assert all(len(row) == 7 for row in rows)
    for row in rows[2:]:
        assert {cell.strip() for cell in row[1:]} <= {"yes", "part", "-"}
