"""Whatever is being written, a program that is killed leaves what was there, or all that is new."""

from __future__ import annotations

import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from tests.hostile.artefacts import ARTEFACTS, written_before
from tests.hostile.conftest import Count
from tests.hostile.faults import count_changes, files_of, kill_after, kill_at_change


@pytest.mark.parametrize(
    "n", [pytest.param(4, id="some"), pytest.param(34, id="all", marks=pytest.mark.hostile)]
)
@pytest.mark.parametrize("kind", ARTEFACTS)
def test_who_is_killed_while_writing_leaves_the_old_or_the_new_whole(
    kind: str, n: int, tmp_path: Path, count: Count
) -> None:
    artefact, folder = ARTEFACTS[kind], tmp_path / "trial" / kind
    write, restore = partial(artefact.save, folder, 1), written_before(kind, tmp_path)
    restore()
    n_changes = count_changes(write)
    restore()
    start = time.monotonic()
    kill_at_change(write, 0)  # nothing is
    seconds = time.monotonic() - start
    rng, found = np.random.default_rng(0), []
    for trial in range(n):
        restore()
        if trial % 2:
            kill_after(write, float(rng.uniform(0, seconds)))
        else:
            assert kill_at_change(write, 1 + int(rng.integers(n_changes)))
        found.append(artefact.read(folder))
        if trial % 4 == 0:  # who begins again ends as if nothing had happened
            artefact.save(folder, 1)
            assert artefact.read(folder) == 1
            assert not [name for name in files_of(folder.parent) if ".partial" in name]
    count("killed while it writes: the old or the new is whole", n, 0)
    assert set(found) <= {0, 1}
