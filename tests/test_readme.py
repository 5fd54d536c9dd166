"""The pages for readers: their length, links, commands and code, and the files around them."""

from __future__ import annotations

import ast
import re
import shlex
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness.results import load_results
from llmrec.data.versions import CONFIG_KEYS, FLAGS, MOVED_NAMES, __version__
from tests.pages import DOCS, README, ROOT, code_blocks, command_lines

LOG, CHANGELOG = ROOT / "LOG.md", ROOT / "CHANGELOG.md"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
WRAPPED = [README, CONTRIBUTING, LOG, CHANGELOG, ROOT / "prompts" / "README.md", *DOCS]
LINKED = [*WRAPPED, ROOT / "finetune" / "README.md"]
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")
YAML = [
    *(ROOT / ".github").glob("**/*.yml"),
    ROOT / ".pre-commit-config.yaml",
    ROOT / "CITATION.cff",
]


def relative_name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def target_recipe(target: str) -> list[str]:
    """List the commands of a target in the Makefile."""
    lines = MAKEFILE.splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"{target}:"))
    rest = lines[start + 1 :]
    stop = next(n for n, line in enumerate(rest) if not line.startswith("\t"))
    return [line.strip() for line in rest[:stop]]


def heading_anchors(path: Path) -> set[str]:
    """List the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def commands_shown() -> list[Any]:
    """List the command lines of llmrec in code blocks, as parameters of a test."""
    return [
        pytest.param(line, id=f"{path.name}: {line[:60].strip()}")
        for path in [README, CONTRIBUTING, *DOCS]
        for line in command_lines("".join(code_blocks(path, "") + code_blocks(path, "sh")))
        if line.startswith("llmrec ")
    ]


def test_the_readme_has_at_most_160_lines() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("path", WRAPPED, ids=relative_name)
def test_lines_have_at_most_100_characters_but_for_rows_of_tables_outside_of_the_readme(
    path: Path,
) -> None:
    lines = path.read_text(encoding="utf-8").splitlines()
    tables_count = path == README
    long = [line for line in lines if len(line) > 100 and (tables_count or line[:1] != "|")]
    assert long == []


TITLES = "LLM titles in"
REPEATS = "next 28 days, repeat allowed / test"
CAME_TRUE = "explanations/came_true"
# Sentences of README.md, and where in the results their numbers are: file, split, model, metric.
SENTENCES = {
    "on MovieLens it adds {:+.3f}": [
        ("finetuning/quality_ml-100k", "test", f"{TITLES} GatedMixture", "gain_of_llm")
    ],
    "than a GRU4Rec does ({:+.3f}, {:+.3f})": [
        ("finetuning/quality_ml-100k", "test", f"{TITLES} DecayedDirichlet", "gain_of_llm"),
        ("forecasting/next_item", "test", "GRU4Rec", "log_loss_gain"),
    ],
    "nothing is far above counting ({:.3f} and {:.3f})": [
        ("ranking/compare_repeat-allowed", f"{REPEATS} {n}", "Personal frequency", "ndcg@10")
        for n in (1, 2)
    ],
    "EASE with a trend has {:.3f} and {:.3f} on Online Retail": [
        (
            "ranking/compare_retail-explore",
            f"next 28 days, explore only / test {n}",
            "EASE with season",
            "ndcg@10",
        )
        for n in (1, 2)
    ],
    "a MovieLens viewer, said with {:.0%}, {:.0%} came true": [
        (f"{CAME_TRUE}_ml-100k", "test", "said", metric) for metric in ("said", "came_true")
    ],
    "with {:.0%}, {:.0%} on Complete Journey": [
        (f"{CAME_TRUE}_completejourney", "test 2 / everybody", "said", metric)
        for metric in ("said", "came_true")
    ],
    "unchecked claims of the LLM {:.0%} did": [
        (f"{CAME_TRUE}_ml-100k", "test / 100 people", "free text, unchecked", "came_true")
    ],
    "intervals of 80% hold {:.0%} (Complete Journey) and {:.0%} (MovieLens)": [
        ("explanations/came_true_completejourney", "test 1", "llmrec standard", "coverage80"),
        ("explanations/came_true_ml-100k", "test", "llmrec standard", "coverage80"),
    ],
}


@pytest.mark.parametrize("sentence", SENTENCES)
def test_numbers_in_sentences_of_the_readme_are_those_of_the_results(sentence: str) -> None:
    values = []
    for file, split, model, metric in SENTENCES[sentence]:
        rows = load_results(file)["rows"]
        keys = {"split": split, "model": model, "metric": metric}
        (row,) = (row for row in rows if keys.items() <= row.items())
        values.append(row["value"])
    text = " ".join(README.read_text(encoding="utf-8").split())
    text = re.sub(r" \(\d+% to \d+%\)", "", text)  # an interval behind its value
    assert re.sub(r"(?<![+-])0\.", ".", sentence.format(*values)) in text


@pytest.mark.parametrize("path", LINKED, ids=relative_name)
def test_every_link_to_a_file_and_heading_leads_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", path.read_text(encoding="utf-8"))
    for target, anchor in links:
        if "://" in target:
            continue
        found = (path.parent / target).resolve() if target else path
        assert found.exists(), target
        assert not anchor or anchor in heading_anchors(found), f"{target}#{anchor}"


@pytest.mark.parametrize("path", [README, *DOCS], ids=relative_name)
def test_python_blocks_compile_and_import_names_that_exist(path: Path) -> None:
    for block in code_blocks(path, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = import_module(node.module)
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []


@pytest.mark.parametrize("line", commands_shown())
def test_a_command_that_is_shown_has_options_that_exist(line: str) -> None:
    from typer.main import get_command

    from llmrec.cli import app

    words = shlex.split(line, comments=True)[1:]
    command: Any = get_command(app)
    for word in words:  # a group's command is named by a second word
        if not hasattr(command, "commands"):
            break
        command = command.commands[word]
    options = {
        option: parameter
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("-")
    }
    assert [word for word in words if word.startswith("-") and word not in options] == []
    for option, value in pairwise(words):
        if option in options and not getattr(options[option], "is_flag", False):
            assert not value.startswith("-")


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    for path in [README, CONTRIBUTING, *DOCS, ROOT / "finetune" / "README.md"]:
        named = re.findall(r"(?:^|`)make ([a-z-]+)", path.read_text("utf-8"), re.MULTILINE)
        assert set(named) <= targets, path


def test_the_readme_names_the_test_command_that_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8").splitlines()
    commands = [line for line in script if line.startswith("make ")]
    assert commands == ["make lint", "make test"]
    assert any(line.startswith("make test ") for line in README.read_text("utf-8").splitlines())
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text(encoding="utf-8")
    assert re.findall(r"^ *- run: (.*)$", workflow, re.MULTILINE) == [".ci/run"]


def test_hooks_before_a_commit_run_what_make_lint_runs() -> None:
    import yaml

    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))
    hooks = [hook["entry"] for repository in config["repos"] for hook in repository["hooks"]]
    assert hooks == [line.replace("$(BIN)", ".venv/bin") for line in target_recipe("lint")]


@pytest.mark.parametrize("path", YAML, ids=relative_name)
def test_yaml_files_can_be_loaded(path: Path) -> None:
    import yaml

    assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict)


def test_a_bug_report_asks_for_the_output_of_llmrec_env() -> None:
    form = (ROOT / ".github" / "ISSUE_TEMPLATE" / "bug.yml").read_text(encoding="utf-8")
    assert "`llmrec env`" in form


def test_the_citation_and_the_changelog_name_this_version() -> None:
    import yaml

    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == __version__
    assert citation["authors"] == [{"name": "the llmrec developers"}]
    assert f"## [{__version__}]" in CHANGELOG.read_text(encoding="utf-8")


def test_the_changelog_names_what_was_renamed_and_its_name_of_today() -> None:
    rows = [line for line in CHANGELOG.read_text("utf-8").splitlines() if line.startswith("| ")]
    pairs = {**FLAGS, **CONFIG_KEYS, **{f"llmrec.{old}": new for old, new in MOVED_NAMES.items()}}
    for old, new in pairs.items():
        before_and_after = [row.split(" | ") for row in rows if " | " in row]
        assert any(
            re.search(rf"`(forecast )?{re.escape(old)}\b", row[0]) and new in row[1]
            for row in before_and_after
        ), f"{old} is now {new}"


def test_every_entry_of_the_log_has_a_date() -> None:
    entries = re.findall(r"^- (.{10})", LOG.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(entries) > 90
    assert [start for start in entries if not re.fullmatch(r"\d{4}-\d\d-\d\d", start)] == []
