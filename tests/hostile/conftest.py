"""Counts of what was tried against each guarantee, shown at the end of a run."""

from __future__ import annotations

from collections.abc import Callable

import pytest

Count = Callable[[str, int, int], None]


@pytest.fixture
def count(record_property: Callable[[str, object], None]) -> Count:
    """Give a function that notes, of a guarantee, how many cases were tried and how many broke it.

    The counts are properties of the test's report, as those that JUnit files hold.
    """

    def note(guarantee: str, n_tried: int, n_broken: int = 0) -> None:
        record_property(guarantee, (n_tried, n_broken))

    return note


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show the counts, a line a guarantee."""
    totals: dict[str, tuple[int, int]] = {}
    for report in (
        one for kind in ("passed", "failed") for one in terminalreporter.getreports(kind)
    ):
        for guarantee, counts in report.user_properties:
            tried, broken = totals.get(guarantee, (0, 0))
            totals[guarantee] = (tried + counts[0], broken + counts[1])
    if totals:
        terminalreporter.section("guarantees: cases tried, cases that broke one")
    for guarantee, (tried, broken) in totals.items():
        terminalreporter.write_line(f"{guarantee}: {tried:,} tried, {broken:,} broken")
