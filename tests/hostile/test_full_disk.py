"""A disk that is full is an error of one line that names the file; what was there is intact."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.artefacts import ARTEFACTS, written_before
from tests.hostile.conftest import Count
from tests.hostile.faults import error_of, fail_beyond, files_of

# What ends a command with a line: an error of ours, or one of a file, which it names.
ERROR = re.compile(r"(OSError that names a file|DataError|TrainingError): .*")


@pytest.mark.parametrize(
    "n", [pytest.param(2, id="some"), pytest.param(8, id="all", marks=pytest.mark.hostile)]
)
@pytest.mark.parametrize("kind", ARTEFACTS)
def test_a_file_that_cannot_grow_leaves_what_was_there(
    kind: str, n: int, tmp_path: Path, count: Count
) -> None:
    artefact, folder = ARTEFACTS[kind], tmp_path / "trial" / kind
    restore = written_before(kind, tmp_path)
    sizes = sorted({len(content) for content in files_of(tmp_path / "both" / kind).values()})
    rng = np.random.default_rng(1)
    for _ in range(n):
        restore()
        before = files_of(folder.parent)
        largest = int(rng.choice(sizes)) - 1  # one of the files at least does not fit
        error = fail_beyond(partial(artefact.save, folder, 1), int(rng.integers(largest)))
        assert ERROR.fullmatch(error), error
        assert files_of(folder.parent) == before
        assert artefact.read(folder) == 0
    count("full disk: one line, the old is whole, and nothing is left over", n, 0)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes in memory; skipped where none may be mounted."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a disk in memory can be mounted by root alone")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("kind", ARTEFACTS)
def test_a_disk_without_room_leaves_what_was_there(
    kind: str, small_disk: Path, count: Count
) -> None:
    artefact, folder = ARTEFACTS[kind], small_disk / "trial" / kind
    written_before(kind, small_disk)()
    room = os.statvfs(small_disk)
    (small_disk / "ballast").write_bytes(bytes(room.f_bavail * room.f_frsize - 4096))
    before = files_of(folder.parent)
    error = error_of(partial(artefact.save, folder, 1))
    assert ERROR.fullmatch(error), error
    assert files_of(folder.parent) == before
    assert artefact.read(folder) == 0
    count("full disk: one line, the old is whole, and nothing is left over", 1, 0)
