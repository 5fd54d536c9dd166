"""The pages for readers, and the code blocks in them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
DOCS = sorted((ROOT / "docs").glob("*.md"))


@dataclass(frozen=True)
class Block:
    """A fenced code block: the word after its fence ("" if there is none), and its text."""

    language: str
    text: str


def read_blocks(path: Path) -> list[Block]:
    """List the code blocks of a page, from top to bottom."""
    page = path.read_text(encoding="utf-8")
    found = re.findall(r"^```([^\n]*)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    return [Block(language.split(" ")[0], text) for language, text in found]


def command_lines(text: str) -> list[str]:
    """Split a block of commands; a line that ends with a backslash goes on in the next one."""
    return text.replace("\\\n", " ").splitlines()


def code_blocks(path: Path, language: str) -> list[str]:
    """List the texts of a page's code blocks in a language."""
    return [block.text for block in read_blocks(path) if block.language == language]
