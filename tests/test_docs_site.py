"""The documentation site builds without a warning, and shows all public names and results."""

from __future__ import annotations

import re
import subprocess
import sys
from html import unescape
from pathlib import Path

import pytest

from benchmarks.harness.front_page import FRONT_PAGE
from tests.pages import DOCS, ROOT
from tests.test_public_names import PUBLIC
from tests.test_readme import target_recipe

MAX_TABLE_ROWS = 6


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site as `make docs` does, but into a folder of the test."""
    folder = tmp_path_factory.mktemp("site")
    (recipe,) = target_recipe("docs")
    command = recipe.replace("$(BIN)/python", sys.executable).replace("docs/_build", str(folder))
    built = subprocess.run(command.split(), cwd=ROOT, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    return folder


def test_the_site_is_built_with_warnings_as_errors() -> None:
    (recipe,) = target_recipe("docs")
    assert {"-W", "--keep-going"} <= set(recipe.split())


def test_every_page_is_built(site: Path) -> None:
    assert [page.stem for page in DOCS if not (site / f"{page.stem}.html").is_file()] == []


@pytest.mark.parametrize("package", [name for name, names in PUBLIC.items() if names])
def test_the_reference_has_every_public_name(site: Path, package: str) -> None:
    page = (site / "api" / f"{package}.html").read_text(encoding="utf-8")
    missing = [name for name in PUBLIC[package].split() if f'id="{package}.{name}"' not in page]
    assert missing == []


def test_tables_of_results_are_short_and_those_of_the_front_page(site: Path) -> None:
    page = unescape((site / "results.html").read_text(encoding="utf-8"))
    tables = re.findall(r"<table.*?</table>", page, re.DOTALL)
    assert 0 < len(tables) <= MAX_TABLE_ROWS
    for table in tables:
        assert 0 < table.count("<tr") - 1 <= MAX_TABLE_ROWS
    front_page = FRONT_PAGE.read_text(encoding="utf-8")
    row = next(line for line in front_page.splitlines() if line.startswith("| llmrec best"))
    shown = [re.sub(r"<[^>]*>", "", cell) for cell in re.findall(r"<td.*?</td>", tables[0])]
    assert [cell.strip() for cell in row.strip("|").split("|")] == shown[-4:]


def test_nothing_of_the_site_is_loaded_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        loaded = re.findall(
            r"<(?:script|img|link)[^>]*(?:src|href)=\"([^\"]*)\"", page.read_text("utf-8")
        )
        assert [address for address in loaded if "//" in address] == [], page
