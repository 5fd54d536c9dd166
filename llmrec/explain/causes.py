"""Causes of an item's rank, and their sentences: past items, popularity, and the forecast."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from llmrec.data.names import clean_text
from llmrec.explain.evidence import MAX_SENTENCE_TITLE_LENGTH, Evidence, format_day, parse_evidence

RECENT_DAYS = 28
MIN_POPULAR = 10  # times in these days that an item is called popular for


@dataclass(frozen=True)
class Cause:
    """A past item that lifts another one, or the same one again.

    Attributes
    ----------
    latest
        The person's newest event of it.
    times
        How often they took it.
    effect
        What it adds to the score beyond what it adds to the best items on average, in nats, over
        the blend's additive scorers.
    share
        Of what all past items add so, where they add; in (0, 1].
    """

    latest: Evidence
    times: int
    effect: float
    share: float


@dataclass(frozen=True)
class PastEffect(Cause):
    """What one past item does to another one's rank, by ranking again without it.

    Attributes
    ----------
    effect
        What the score loses without it, against the mean of the best items: negative where it
        argues against the item.
    share
        Of what the lifting ones of all past items looked at add; 0 where it argues against.
    rank_without
        1-based.
    """

    rank_without: int

    def __str__(self) -> str:
        """Title, and the rank without it: "Alien (1979) (without it 48th)"."""
        title = clean_text(self.latest.title, MAX_SENTENCE_TITLE_LENGTH)
        return f"{title} (without it {format_ordinal(self.rank_without)})"


@dataclass(frozen=True)
class Causes:
    """What an item's rank rests on, as ranking again shows.

    Attributes
    ----------
    rank
        By score, 1-based.
    named
        The past items of largest effect, two at most and the largest first, without which it ranks
        lower; if there are none, those without which it keeps its rank.
    rank_without
        Its rank if the person had never taken the named items; None where none is named.
    tilt, rank_without_tilt
        What tilts the list: "edits" that are in force, or else the "forecast"; and its rank without
        these edits, or without the forecast.
    n_recent
        How often everybody took it in the last `RECENT_DAYS` days.
    is_new
        Whether nobody had taken it before the cutoff.
    close_titles
        Of a new item: the newest events of past items with close titles or features, that which
        pulls most first, two at most.
    close_block
        The block of features in which these are close; "": they are close by their titles.
    """

    rank: int
    named: tuple[Cause, ...] = ()
    rank_without: int | None = None
    tilt: Literal["edits", "forecast"] = "forecast"
    rank_without_tilt: int | None = None
    n_recent: int = 0
    is_new: bool = False
    close_titles: tuple[Evidence, ...] = ()
    close_block: str = ""

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Causes:
        """Make it from the dict of its fields, as JSON has them."""
        named = tuple(
            Cause(**{**one, "latest": parse_evidence([one["latest"]])[0]})
            for one in values["named"]
        )
        close = parse_evidence(values.get("close_titles", ()))
        return cls(**{**values, "named": named, "close_titles": close})

    @property
    def tilt_lifts(self) -> bool:
        """Whether edits, or the forecast, give it a better rank."""
        return self.rank_without_tilt is not None and self.rank_without_tilt > self.rank

    def sentences(self, item_id: str, verb: str) -> tuple[str, ...]:
        """Variants of the sentence that names the past items, the plainest first."""
        if not self.named:
            return self._popularity_sentences(verb)
        first = self.named[0]
        if first.latest.item_id == item_id:
            return self._repeat_sentences(first, verb)
        titles = [clean_text(c.latest.title, MAX_SENTENCE_TITLE_LENGTH) for c in self.named]
        these = " and ".join(titles)
        add, it = ("adds", "it") if len(titles) == 1 else ("add", "these two")
        rank = format_ordinal(self.rank_without or 0)
        if self._is_lifted:
            outcome = f"without {it} this would be {rank}"
            return (
                f"Because you have {verb} {these}: {outcome}.",
                f"You have {verb} {these}; {outcome}.",
            )
        return (
            f"Of what you have {verb}, {these} {add} most to its score; without {it} this would "
            f"still be {rank}.",
        )

    def new_sentences(self, verb: str) -> tuple[str, ...]:
        """Variants of the sentence that says that it is new; () if it is not."""
        if not self.is_new:
            return ()
        nobody = f"Nobody has {verb} it yet"
        if not self.close_titles:
            return (f"{nobody}.",)
        titles = [clean_text(e.title, MAX_SENTENCE_TITLE_LENGTH) for e in self.close_titles]
        what = f"in its {self.close_block} features it" if self.close_block else "its title"
        close = f"{what} is close to {' and '.join(titles)}, which you have {verb}"
        return f"{nobody}; {close}.", f"It is new: nobody has {verb} it; {close}."

    @property
    def _is_lifted(self) -> bool:
        return self.rank_without is not None and self.rank_without > self.rank

    def _repeat_sentences(self, own: Cause, verb: str) -> tuple[str, ...]:
        did, last = verb[:1].upper() + verb[1:], format_day(own.latest.date)
        still = "" if self._is_lifted else "still "
        outcome = f"without that it would {still}be {format_ordinal(self.rank_without or 0)}"
        if own.times == 1:
            return (
                f"{did} once before, on {last}: {outcome}.",
                f"It was {verb} before, once, on {last}; {outcome}.",
            )
        return (
            f"{did} {own.times} times before, last on {last}: {outcome}.",
            f"It was {verb} before, {own.times} times, most recently on {last}; {outcome}.",
        )

    def _popularity_sentences(self, verb: str) -> tuple[str, ...]:
        nothing = f"of what you have {verb} nothing that was tried lifts it"
        if not self.n_recent:
            return (f"{nothing[:1].upper()}{nothing[1:]}.",)
        times = "once" if self.n_recent == 1 else f"{self.n_recent:,} times"
        taken = f"{verb} {times} by everybody in the last {RECENT_DAYS} days"
        if self.n_recent >= MIN_POPULAR:
            return (f"Popular lately: {taken}; {nothing}.",)
        return (f"{taken[:1].upper()}{taken[1:]}; {nothing}.",)


def format_ordinal(number: int) -> str:
    """Format a rank: "1st", "48th", "1,203rd"."""
    ending = "th"
    if number % 100 not in (11, 12, 13):
        ending = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"
