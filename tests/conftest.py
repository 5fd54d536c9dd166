"""What every test runs under: one thread, no network, the same examples each time in CI."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

# Read when numpy and torch are first imported, so before any test module is. On a busy machine
# with two cores, two threads are far slower than one.
for _variable in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
    os.environ[_variable] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["HF_HUB_OFFLINE"] = "1"
# No test writes a key of ids into the cache of whoever runs it.
os.environ["LLMREC_ID_KEY"] = str(Path(tempfile.mkdtemp()) / "ids.key")

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402

settings.register_profile("llmrec", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("llmrec")


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Undo what an earlier test may have set; a test without torch does not import it."""
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_num_threads(1)
