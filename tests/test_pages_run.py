"""Every Python block of the pages runs, and so does every block of commands marked ``sh``.

Blocks of commands without a mark take a language model, minutes or another machine: that their
options exist is tested in `tests.test_readme`.
"""

from __future__ import annotations

import contextlib
import io
import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from llmrec import cli
from llmrec.language import codec
from tests.news_log import write_news_log
from tests.pages import DOCS, README, ROOT, Block, command_lines, read_blocks
from tests.real_parts import needs_real_parts
from tests.test_engine import frame

RUN = {"python", "sh"}
# Their blocks load the embedded language model and encoder.
WITH_MODEL = {"README.md", "your-data.md"}
PAGES = [
    pytest.param(page, id=page.name, marks=[pytest.mark.slow] * (page.name in WITH_MODEL))
    for page in (README, *DOCS)
    if RUN & {block.language for block in read_blocks(page)}
]


class GroupsOfSpark:
    """Has of a Spark frame what docs/batch.md takes: groups of people, and a function on each."""

    def __init__(self, frame: pd.DataFrame) -> None:
        self.frame = frame
        self.user_id = self

    def substr(self, start: int, length: int) -> pd.Series[str]:
        return self.frame["user_id"].str[start:][lambda ids: ids.index].str[:length]

    def groupBy(self, keys: pd.Series[str]) -> GroupsOfSpark:
        self.keys = keys
        return self

    def applyInPandas(
        self, function: Callable[[pd.DataFrame], pd.DataFrame], schema: str
    ) -> pd.DataFrame:
        parts = [function(part) for _, part in self.frame.groupby(self.keys)]
        assert list(parts[0]) == [field.split()[0] for field in schema.split(", ")]
        return pd.concat(parts)


def write_shop(folder: Path) -> None:
    """Write what README.md and docs/your-data.md read: sixty customers, five months, twelve items.

    Beside it lie a news log, and ``shop.csv``: a hundred people, twenty-five items.
    """
    rng = np.random.default_rng(0)
    customers = [f"customer {n}" for n in range(60)]
    days = pd.date_range("2024-01-01", periods=150, freq="D")
    rows = [
        (customer, f"item {rng.integers(12)}", day)
        for customer in customers
        for day in days[rng.random(len(days)) < 0.2]
    ]
    events = pd.DataFrame(rows, columns=["customer", "item_id", "at"])
    events.to_csv(folder / "events.csv", index=False)
    items = {
        "item_id": [f"item {n}" for n in range(12)],
        "categories": ["tea", "coffee", "cake"] * 4,
    }
    pd.DataFrame(items).to_csv(folder / "items.csv", index=False)
    write_news_log(folder / "MINDsmall_dev")
    frame(n_users=100, n_days=200).to_csv(folder / "shop.csv", index=False)


def run_commands(text: str) -> str:
    """Run a block of llmrec commands, and give what they print."""
    printed = []
    for line in command_lines(text):
        words = shlex.split(line, comments=True)
        if not words:
            continue
        assert words[0] == "llmrec", f"only llmrec runs in a block marked sh, not {line!r}"
        shown = CliRunner().invoke(cli.app, words[1:])
        assert shown.exit_code == 0, f"{line}\n{shown.output}"
        printed.append(shown.stdout)
    return "".join(printed)


def run_python(text: str, page: str, variables: dict[str, Any]) -> str:
    """Run a block in a page's namespace, and give what it prints."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown):
        exec(compile(text, page, "exec"), variables)
    return shown.getvalue()


def run_block(block: Block, page: str, variables: dict[str, Any]) -> str:
    if block.language == "sh":
        return run_commands(block.text)
    return run_python(block.text, page, variables)


def one_line(text: str) -> str:
    return " ".join(text.split())


@needs_real_parts
@pytest.mark.parametrize("page", PAGES)
def test_blocks_run_and_print_what_the_page_shows(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_shop(tmp_path)
    (tmp_path / "finetune").symlink_to(ROOT / "finetune")
    monkeypatch.chdir(tmp_path)
    variables: dict[str, Any] = {}
    if page.name == "batch.md":
        people = pd.read_csv("shop.csv").astype({"timestamp": "datetime64[ms]"})
        variables["events"] = GroupsOfSpark(people[people["user_id"] < "u020"])
    if page.name == "extend.md":  # it adds a template
        prompts = shutil.copytree(codec.prompts_folder(), tmp_path / "prompts")
        monkeypatch.setattr(codec, "prompts_folder", lambda: prompts)
    printed = ""
    for block in read_blocks(page):
        if block.language in RUN:
            printed = run_block(block, page.name, variables)
        elif block.language == "text":
            assert one_line(block.text) == one_line(printed)


def test_blocks_of_the_pages_are_of_languages_that_are_tested() -> None:
    known = {"", "text", *RUN}
    for page in (README, *DOCS):
        found = {block.language for block in read_blocks(page)}
        assert {language for language in found if language[:1] != "{"} <= known, page
