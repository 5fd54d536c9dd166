"""Every package that is installed by a file of ours is pinned, and verified by a hash."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import pytest

from llmrec.data.embedded import EMBEDDED_PARTS
from tests.pages import ROOT

HASHED = [*sorted(ROOT.glob(".ci/*requirements.txt")), *sorted(ROOT.glob("llmrec/data/*.txt"))]
BROUGHT = sorted([*ROOT.glob("llmrec/**/*.min.*"), *ROOT.glob("tests/**/*.min.*")])  # by others
LICENCES = (ROOT / "docs" / "licences.md").read_text(encoding="utf-8")
BY_VERSION = {"torch"}  # its build depends on where it is looked for: see SECURITY.md


def pins(path: Path) -> dict[str, str]:
    """Give the version of each package of a file."""
    lines = [re.split(r"[\s;\\]", line)[0] for line in path.read_text().splitlines()]
    found = [line.split("==") for line in lines if line and line[0] not in "#-"]
    return {re.sub(r"[-_.]+", "-", name).lower(): version for name, version in found}


@pytest.mark.parametrize("path", HASHED, ids=lambda path: path.name)
def test_every_package_has_an_exact_version_and_a_hash(path: Path) -> None:
    text = path.read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    assert lines
    hashed = r"[\w.-]+==\S+( ; [^\\]+?)?(\s+--hash=sha256:[0-9a-f]{64})+\s*"
    assert [line[:60] for line in lines if not re.fullmatch(hashed, line)] == []


@pytest.mark.parametrize("kind", ["", "rectools-"])
def test_all_that_is_pinned_is_hashed_but_for_torch(kind: str) -> None:
    pinned = pins(ROOT / ".ci" / f"{kind}constraints.txt")
    hashed = pins(ROOT / ".ci" / f"{kind}requirements.txt")
    assert hashed == {name: one for name, one in pinned.items() if name not in BY_VERSION}


@pytest.mark.parametrize("name", ["serve-requirements.txt", "serve-llm-requirements.txt"])
def test_the_image_has_the_versions_that_the_tests_ran_with(name: str) -> None:
    pinned, found = pins(ROOT / ".ci" / "constraints.txt"), pins(ROOT / ".ci" / name)
    common = found.keys() & pinned.keys()
    assert {one: found[one] for one in common} == {one: pinned[one] for one in common}
    assert {"fastapi", "uvicorn", "sqlalchemy", "lightgbm"} <= found.keys()
    # What stands beside it comes with the build of torch that PyPI has.
    beside = {one.split("-")[0] for one in found.keys() - pinned.keys()}
    assert beside <= ({"nvidia", "cuda", "triton", "setuptools"} if "llm" in name else set())


def test_what_make_and_the_image_install_is_verified() -> None:
    for name in ("Makefile", "Dockerfile"):
        text = (ROOT / name).read_text().replace("\\\n", " ")
        installs = re.findall(r"pip install ([^\n&]*)", text)
        assert installs
        tools = "uv=="  # of maintainers: nothing of ours runs with them
        for line in installs:
            by_version = [one for one in BY_VERSION if f" {one}==" in f" {line}"]
            own = re.search(r"--no-deps .*\.\s*$", line)
            assert "--require-hashes" in line or by_version or own or tools in line, line


def table_of(text: str) -> list[list[str]]:
    """Give the cells of the rows of all tables."""
    rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_every_promise_names_tests_that_exist() -> None:
    security = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
    promises = security.partition("## What is promised")[2].partition("\n## ")[0]
    rows = table_of(promises)[2:]
    assert rows
    for promise, tests in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)`", tests)
        assert named, promise
        assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_embedded_part_is_pinned_and_listed_with_its_terms() -> None:
    listed = {cell for row in table_of(LICENCES) for cell in row}
    pinned = pins(ROOT / "llmrec" / "data" / "embedded-requirements.txt")
    found = {(part.distribution, part.version) for part in EMBEDDED_PARTS}
    assert {(name.replace("_", "-"), version) for name, version in found} == set(pinned.items())
    assert {f"`{name}` {version}" for name, version in found} <= listed
    assert all(part.licence for part in EMBEDDED_PARTS)


@pytest.mark.parametrize("script", BROUGHT, ids=lambda path: path.name)
def test_a_script_of_others_is_the_one_that_is_listed_and_has_its_licence_beside(
    script: Path,
) -> None:
    digest = hashlib.sha256(script.read_bytes()).hexdigest()[:16]
    assert f"`{digest}`" in LICENCES, "name its version and hash in docs/licences.md"
    assert script.with_name(f"{script.name.partition('.')[0]}.LICENSE.txt").is_file()
