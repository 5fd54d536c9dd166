"""What reading a log decided, changed, set aside and dropped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy.typing as npt
import pandas as pd

from llmrec.data.source_rows import name_row, tell_first_row

Effect = Literal["dropped", "set aside", "changed", "read"]
EXAMPLES = 5  # row numbers that a report lists of a rule


@dataclass(frozen=True)
class Finding:
    """One rule that had an effect while a log was read.

    Attributes
    ----------
    rule
        The rule, in words.
    rows
        How many rows it hit.
    example
        One of them: its row number, its value, or both.
    effect
        "dropped" and "set aside" (an option keeps them) rows are not in the log; "changed" ones
        are; "read" is how all of them were read.
    """

    rule: str
    rows: int
    example: str = ""
    effect: Effect = "dropped"


@dataclass(frozen=True)
class CleaningReport:
    """How many rows were read, kept, and dropped for which reason.

    Attributes
    ----------
    rows_read
        Rows of the frame that was given.
    dropped
        Reason to number of rows; each dropped row counts once, under the first reason that hit.
    examples
        Reason to the first few row numbers (0-based, in the frame's order).
    values
        Reason to what one of its rows holds, where that says more than its number.
    set_aside
        The reasons whose rows an option keeps.
    notes
        What was read or changed, without a row being dropped.
    source_rows
        (rows_read,) the rows of the files that a frame was read from; None: those of the frame.
    """

    rows_read: int
    dropped: Mapping[str, int] = field(default_factory=dict)
    examples: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    values: Mapping[str, str] = field(default_factory=dict)
    set_aside: frozenset[str] = frozenset()
    notes: tuple[Finding, ...] = ()
    source_rows: pd.Index[Any] | None = field(default=None, repr=False, compare=False)

    @property
    def rows_kept(self) -> int:
        """Rows that survived."""
        return self.rows_read - sum(self.dropped.values())

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What was read and changed, then what was dropped, one entry a rule."""
        return self.notes + tuple(
            Finding(
                reason,
                count,
                self._example(reason),
                "set aside" if reason in self.set_aside else "dropped",
            )
            for reason, count in self.dropped.items()
        )

    def with_dropped(
        self,
        reason: str,
        rows: npt.NDArray[Any],
        value: str = "",
        *,
        effect: Literal["dropped", "set aside"] = "dropped",
    ) -> CleaningReport:
        """Give a report that also counts these (n,) row numbers under a reason."""
        if not len(rows):
            return self
        dropped = {**self.dropped, reason: self.dropped.get(reason, 0) + len(rows)}
        first = (*self.examples.get(reason, ()), *(int(row) for row in rows[:EXAMPLES]))[:EXAMPLES]
        values = {reason: value} if value and reason not in self.values else {}
        return replace(
            self,
            dropped=dropped,
            examples={**self.examples, reason: first},
            values={**self.values, **values},
            set_aside=self.set_aside | ({reason} if effect == "set aside" else set()),
        )

    def with_notes(self, *notes: Finding) -> CleaningReport:
        """Give a report that also says what was read or changed."""
        return replace(self, notes=(*self.notes, *notes))

    def with_source_rows(self, rows: pd.Index[Any]) -> CleaningReport:
        """Give a report that names rows as the files have them, see `llmrec.data.source_rows`."""
        notes = (replace(one, example=tell_first_row(one.example, rows)) for one in self.notes)
        return replace(self, notes=tuple(notes), source_rows=rows)

    def _name_row(self, row: int) -> str:
        return str(row) if self.source_rows is None else name_row(self.source_rows, row)

    def _example(self, reason: str) -> str:
        row = f"row {self._name_row(self.examples[reason][0])}"
        value = self.values.get(reason, "")
        return f"{row}: {value}" if value else row

    def __str__(self) -> str:
        """One line a reason, with the first rows it hit."""
        lines = [f"{self.rows_read:,} rows read, {self.rows_kept:,} kept"]
        for reason, count in self.dropped.items():
            # A row of clicks may have made several events.
            rows = ", ".join(dict.fromkeys(map(self._name_row, self.examples[reason])))
            value = f": {self.values[reason]}" if reason in self.values else ""
            more = ", ..." * (count > EXAMPLES)
            lines.append(f"  {count:,} dropped: {reason} (rows {rows}{more}{value})")
        return "\n".join(lines)
