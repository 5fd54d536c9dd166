"""The embedded model and logs, for tests that must run on real parts."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

import pytest

from llmrec.data.embedded import EMBEDDED_PARTS


def _installed() -> bool:
    try:
        return all(version(part.distribution) for part in EMBEDDED_PARTS)
    except PackageNotFoundError:
        return False


needs_real_parts = pytest.mark.skipif(
    not _installed(),
    reason="the embedded model and logs are not installed (make test installs them)",
)
