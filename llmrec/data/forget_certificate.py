"""What became of all that was known of a person who was forgotten."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

# What becomes of what was trained on a person: it stays and is named, is fitted again on what is
# left, or nothing is done at all.
Trained = Literal["keep", "fit", "refuse"]


@dataclass(frozen=True)
class ChangedPart:
    """A part that held, or was fitted on, something of the person, and no longer does.

    Attributes
    ----------
    part, where
        What it is, and its file; "" for a part of an engine in memory.
    counted, before, after
        What is counted in it, such as "events", and how many there were and are.
    """

    part: str
    where: str
    counted: str
    before: int
    after: int

    def __str__(self) -> str:
        """Say it in a line."""
        return (
            f"{_placed(self.part, self.where)}: {self.before:,} {self.counted}, {self.after:,} now"
        )


@dataclass(frozen=True)
class UnchangedPart:
    """A part that has seen the person and stays as it is.

    Attributes
    ----------
    since
        It saw what was before this time, or "" where that is not known.
    way_out
        What changes it.
    """

    part: str
    where: str
    since: str
    way_out: str

    def __str__(self) -> str:
        """Say it in a line."""
        seen = f" saw events before {self.since[:16]};" if self.since else ""
        return f"{_placed(self.part, self.where)}:{seen} {self.way_out}"


@dataclass(frozen=True)
class ForgetCertificate:
    """What was looked at to forget a person, and what became of it; it does not hold their id.

    Attributes
    ----------
    person
        Keyed hash of the id, see `llmrec.data.keyed_ids`; "" where no key is at hand.
    made
        When, in UTC.
    changed
        What held something of the person.
    without
        What was looked at and held nothing.
    unchanged
        What has seen the person and stays.
    """

    person: str
    made: str
    changed: tuple[ChangedPart, ...] = ()
    without: tuple[str, ...] = ()
    unchanged: tuple[UnchangedPart, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)

    def lines(self) -> list[str]:
        """Say it in lines."""
        whose = f"Forgotten: {self.person}" if self.person else "Forgotten"
        lines = [f"{whose}, {self.made[:16]} UTC"]
        for heading, parts in (
            ("Removed from", self.changed),
            ("Nothing of the person in", self.without),
            ("Has seen the person, and stays", self.unchanged),
        ):
            lines += [heading, *(f"  {part}" for part in parts)] if parts else []
        return lines if len(lines) > 1 else [*lines, "There was nothing to look at."]


def _placed(part: str, where: str) -> str:
    return f"{part} ({where})" if where else part
