"""What a log was read as, what was set aside, and what a forecast from it can expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.data.calendar import PeriodLength, period_boundaries
from llmrec.data.dataset import Dataset
from llmrec.data.outliers import STRAY_GAP_DAYS
from llmrec.data.report import Finding
from llmrec.data.splits import split_windows
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS, MIN_FIT_WINDOWS, last_period_windows
from llmrec.errors import DataError

_MANY_CATEGORIES = 300
_FEW_EVENTS = 3
_SEPARATORS = {",": "commas", ";": "semicolons", "/": "slashes", ">": "angle brackets"}


@dataclass(frozen=True)
class DatasetCheck:
    """What a log was read as.

    Attributes
    ----------
    users, items, interactions
        How many are left after cleaning; items are those of the catalog.
    rows_read, rows_left_out
        Rows of events, and those that are dropped or set aside.
    categories
        Their names, sorted.
    first, last
        Times of the first and of the last event that is left, ISO 8601 in UTC.
    period, noun, verb, repeat
        Of the dataset.
    n_periods
        Whole periods that the log spans, or the median person where periods are of events.
    n_windows
        People with events before and in the last period: what an engine is fitted on.
    n_compared
        People whom `evaluate` compares forecasters on, by its split.
    findings
        What reading decided, changed, set aside and dropped.
    warnings
        What a forecast from this log cannot be expected to do, in sentences.
    """

    name: str
    users: int
    items: int
    interactions: int
    rows_read: int
    rows_left_out: int
    categories: tuple[str, ...]
    first: str
    last: str
    period: str
    noun: str
    verb: str
    repeat: str
    n_periods: int
    n_windows: int
    n_compared: Mapping[str, int]
    findings: tuple[Finding, ...]
    warnings: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Give it as plain values for JSON; the findings are the list "report"."""
        plain = {key: value for key, value in vars(self).items() if key != "findings"}
        report = [vars(finding) for finding in self.findings]
        return {
            **plain,
            "categories": list(self.categories),
            "n_compared": dict(self.n_compared),
            "report": report,
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """Say all of it in words, a line each; indented ones belong to the one above."""
        again = "may" if self.repeat == "allow" else "may not"
        read = [one for one in self.findings if one.effect == "read"]
        others = [one for one in self.findings if one.effect != "read"]
        return [
            f"{self.name}: {self.interactions:,} events of {_count(self.users, 'person', 'people')}"
            f" and {self.items:,} {self.noun} in "
            f"{_count(len(self.categories), 'category', 'categories')}",
            f"  first event {_readable(self.first)}, last event {_readable(self.last)} (UTC)",
            f"  period {PeriodLength.parse(self.period)}; {self.noun} already {self.verb} {again} "
            "be recommended again",
            *_section("How it was read", [f"{one.rule}{_example(one)}" for one in read]),
            *_section(
                "What was left out or changed",
                [
                    *[f"{self.rows_left_out:,} of {self.rows_read:,} rows left out"]
                    * (self.rows_left_out > 0),
                    *(f"{_rows(one)} {one.effect}: {one.rule}{_example(one)}" for one in others),
                ],
            ),
            *_section("What to expect", [self._windows(), *self.warnings]),
        ]

    def _windows(self) -> str:
        told = (
            f"{_count(self.n_periods, 'period', 'periods')} of {PeriodLength.parse(self.period)}; "
            f"{_count(self.n_windows, 'person has', 'people have')} events before and in the last "
            f"one{', which engines are fitted on' * (self.n_windows >= MIN_FIT_WINDOWS)}."
        )
        compared = ", ".join(f"{n:,} ({split})" for split, n in self.n_compared.items())
        return f"{told} `evaluate` compares on so many people: {compared}." if compared else told


def summarize_reading(dataset: Dataset) -> str:
    """Say in a line what was read of a log, what was left out of it, and how it was read."""
    log, report = dataset.log, dataset.log.report
    first, last = (str(time)[:10] for time in (log.timestamp.min(), log.timestamp.max()))
    parts = [f"{len(log):,} events of {_count(log.n_users, 'person', 'people')}, {first} to {last}"]
    if report.dropped:
        reasons = "; ".join(f"{rows:,} {reason}" for reason, rows in report.dropped.items())
        left_out = sum(report.dropped.values())
        parts.append(f"{left_out:,} of {report.rows_read:,} rows left out ({reasons})")
    others = (*dataset.reading, *dataset.catalog.report.findings, *report.notes)
    for one in sorted(others, key=lambda one: one.effect == "read"):
        told = one.effect != "read"
        parts.append(f"{_rows(one)} {one.effect} ({one.rule})" if told else one.rule)
    return f"{dataset.name}: {'; '.join(parts)}."


def check_dataset(dataset: Dataset) -> DatasetCheck:
    """Count what a log holds, and say what a forecast from it can expect."""
    log, catalog = dataset.log, dataset.catalog
    first, last = (str(time) for time in (log.timestamp.min(), log.timestamp.max()))
    at_reading = sum(one.rows for one in dataset.reading if one.effect == "dropped")
    windows = len(last_period_windows(log, catalog, dataset.period))
    compared, too_short = _compared(dataset)
    return DatasetCheck(
        name=dataset.name,
        users=log.n_users,
        items=catalog.n_items,
        interactions=len(log),
        rows_read=log.report.rows_read + at_reading,
        rows_left_out=sum(log.report.dropped.values()) + at_reading,
        categories=tuple(sorted(catalog.categories)),
        first=first,
        last=last,
        period=dataset.period,
        noun=dataset.noun,
        verb=dataset.verb,
        repeat=dataset.repeat,
        n_periods=_count_periods(dataset),
        n_windows=windows,
        n_compared=compared,
        findings=dataset.findings,
        warnings=(*_warnings(dataset, windows), *too_short),
    )


def _count_periods(dataset: Dataset) -> int:
    length = PeriodLength.parse(dataset.period)
    if length.unit == "events":
        return int(np.median(np.diff(dataset.log.user_offsets)) // length.n)
    return len(period_boundaries(dataset.log, length)) - 1


def _compared(dataset: Dataset) -> tuple[dict[str, int], list[str]]:
    """Count the windows of each split of `evaluate`; or say why there are none."""
    try:
        splits = split_windows(dataset)
    except DataError as error:
        return {}, [f"Nothing can be compared: {error}"]
    return {split: len(windows) for split, windows in splits.items()}, []


def _warnings(dataset: Dataset, n_windows: int) -> list[str]:
    """Say what of a log makes a forecast weak, or looks like a mistake."""
    log, catalog = dataset.log, dataset.catalog
    found = []
    if n_windows < MIN_CALIBRATION_WINDOWS:
        kept = "no scores are calibrated" if n_windows >= MIN_FIT_WINDOWS else "nothing is fitted"
        found.append(
            f"Fewer than {MIN_CALIBRATION_WINDOWS} people have events before and in the last "
            f"period: {kept}, and the language model has no weight. A shorter period may help: "
            "--period."
        )
    if catalog.n_categories == 1:
        found.append("There is one category only: a forecast of categories says nothing.")
    if catalog.n_categories > _MANY_CATEGORIES:
        found.append(
            f"{catalog.n_categories:,} categories are more than the {_MANY_CATEGORIES} that "
            "forecasts were measured with: a coarser level is faster, and says more."
        )
    median = float(np.median(np.diff(log.user_offsets)))
    if median < _FEW_EVENTS:
        found.append(
            f"Half of the people have fewer than {_FEW_EVENTS} events: too few to tell what they "
            "like."
        )
    if (gap := _longest_gap(dataset)) is not None:
        days, before, after, events = gap
        found.append(
            f"Nothing happened for {days:,} days from {before} to {after}, and {events:,} events "
            "lie on the far side: if their dates are wrong, take them out."
        )
    return found + _separator_hints(catalog.categories)


def _longest_gap(dataset: Dataset) -> tuple[int, str, str, int] | None:
    """Give the longest time without events if it is long: days, from, to, events beyond it."""
    days = np.unique(dataset.log.timestamp.astype("datetime64[D]"), return_counts=True)
    if len(days[0]) < 2:
        return None
    gaps = np.diff(days[0]).astype(int)
    at = int(gaps.argmax())
    others = int((days[0][-1] - days[0][0]).astype(int)) - int(gaps[at])
    if gaps[at] <= max(STRAY_GAP_DAYS, others):
        return None
    before, after = int(days[1][: at + 1].sum()), int(days[1][at + 1 :].sum())
    return int(gaps[at]), str(days[0][at]), str(days[0][at + 1]), min(before, after)


def _separator_hints(categories: Sequence[str]) -> list[str]:
    """Say where category names look like several names apart by another separator."""
    hints = []
    for sign, name in _SEPARATORS.items():
        cut = [one for one in categories if sign in one]
        parts = {part.strip() for one in cut for part in one.split(sign)}
        # Names that share their parts are lists: "A, B", "B, C" and "A, C"; or "A, B" beside both.
        shared = len(parts) < len(cut) + 1 or len(parts & set(categories)) > 1
        if len(cut) > max(1, len(categories) / 3) and shared:
            hints.append(
                f"{len(cut):,} category names hold {name}, such as {cut[0]!r}: if these separate "
                f"names, say so: --separator '{sign}'."
            )
    return hints


def _rows(finding: Finding) -> str:
    return _count(finding.rows, "row", "rows")


def _count(n: int, one: str, several: str) -> str:
    return f"{n:,} {one if n == 1 else several}"


def _example(finding: Finding) -> str:
    return f" ({finding.example})" if finding.example else ""


def _section(heading: str, lines: Sequence[str]) -> list[str]:
    return ["", heading, *(f"  {line}" for line in lines)] if lines else []


def _readable(time: str) -> str:
    """Give an ISO time without what is 0 at its end."""
    return time.replace("T", " ").removesuffix(".000").removesuffix(" 00:00:00")
