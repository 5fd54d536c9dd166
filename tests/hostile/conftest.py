"""Counts of what was tried against each guarantee, shown at the end of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Counts = dict[str, tuple[int, int]]
COUNTS = pytest.StashKey[Counts]()
Count = Callable[[str, int, int], None]


@pytest.fixture
def count(request: pytest.FixtureRequest) -> Count:
    """Give a function that adds, to a guarantee's name, the cases tried and those that broke it."""
    counts = request.config.stash.setdefault(COUNTS, {})

    def add(guarantee: str, n_tried: int, n_broken: int = 0) -> None:
        tried, broken = counts.get(guarantee, (0, 0))
        counts[guarantee] = (tried + n_tried, broken + n_broken)

    return add


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the counts, a line a guarantee."""
    counts = terminalreporter.config.stash.get(COUNTS, {})
    if not counts:
        return
    terminalreporter.section("guarantees: cases tried, cases that broke one")
    for guarantee, (tried, broken) in counts.items():
        terminalreporter.write_line(f"{guarantee}: {tried:,} tried, {broken:,} broken")
