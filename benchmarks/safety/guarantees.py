"""The guarantees under attack: cases tried, and cases that broke one, in tests/hostile.

Run: python -m benchmarks.safety.guarantees
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import pytest

from benchmarks.harness.formatting import Row
from benchmarks.harness.results import record_results, value_row


class CollectedCounts:
    """A plugin of pytest that keeps what tests noted with the fixture ``count``."""

    def __init__(self) -> None:
        self.counts: dict[str, tuple[int, int]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the counts of a test that has run."""
        if report.when != "call":
            return
        properties: list[tuple[str, Any]] = report.user_properties
        for guarantee, noted in properties:
            tried, broken = self.counts.get(guarantee, (0, 0))
            self.counts[guarantee] = (tried + noted[0], broken + noted[1])

    def rows(self) -> Iterator[Row]:
        """Give a row a guarantee: cases that broke it, of so many."""
        for guarantee, (n_tried, n_broken) in self.counts.items():
            keys: Row = {"dataset": "-", "split": "all", "model": guarantee, "seeds": []}
            yield value_row(keys, "cases that broke it", n_broken, n_tried)


def main() -> None:
    """Run all cases, and write what became of them; fail if a test does."""
    collected = CollectedCounts()
    status = pytest.main(["-m", "hostile", "tests/hostile"], plugins=[collected])
    record_results("safety/guarantees", list(collected.rows()))
    sys.exit(status)


if __name__ == "__main__":
    main()
