"""The reasons for an item's rank: its causes, score, forecast and evidence."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from scipy import sparse

from llmrec.data.periods import History
from llmrec.data.versions import EXPLANATION_KEYS, rename_keys
from llmrec.explain.causes import Causes, format_ordinal
from llmrec.explain.evidence import (
    MAX_EVENTS_SHOWN,
    Evidence,
    category_event_ids,
    category_evidence,
    cite_events,
    format_day,
    parse_evidence,
)
from llmrec.explain.facts import ClaimFacts, format_horizon, format_percent
from llmrec.explain.statement_sentences import statement_sentence
from llmrec.explain.statements import statements_for
from llmrec.forecast import Forecast, Statement, StatementKind
from llmrec.ranking.edits import Edit, active_edits, apply_edits
from llmrec.ranking.ranking import Ranking
from llmrec.types import Shelf

MAX_CATEGORIES_IN_SENTENCE = 2
MIN_SHOWN_TILT = 0.005  # less would be written as 0.00


@dataclass(frozen=True)
class StatementText:
    """A statement about one of an item's categories, with names for indices: it can be stored.

    Its ``evidence`` is found by item and day, so it can be checked in a log where its events are at
    other positions, or gone.
    """

    kind: StatementKind
    category: str
    change: float
    evidence: tuple[Evidence, ...]
    text: str
    probability: float | None = None
    usual_rate: float | None = None


@dataclass(frozen=True)
class ItemExplanation:
    """The reasons for one position of a ranking.

    Attributes
    ----------
    rank
        1-based.
    score
        The sum of ``scorer_parts`` and ``category_parts``, to 1e-9.
    scorer_parts
        Scorer name to its part of the score.
    category_parts
        Category name to the part that the forecast's tilt adds.
    forecast_shares, past_shares
        Share of each of its categories: forecast, and in the history; largest forecast first.
    category_events
        Number of events of the history in each of its categories.
    statements
        True statements about its categories, one each at most: the forecast's own, else derived.
    times_taken, last_taken
        How often the item is in the history, and the day of the last time.
    evidence
        Events of the item, newest first; if there are none, events of the first of its categories
        that has any.
    horizon
        Length of the forecast period: "28 days".
    edited_shares
        Share of each of its categories with the edits of the ranking; empty if none is active.
    edit_factors
        Factor of the edit of each of its categories that is edited itself.
    model_text
        The checked text of the language model; "" without one, or where it is rejected.
    rejection
        Why the model's text is rejected; "" if it is not.
    verb
        What the person did with the items, for the text: "taken", "watched".
    causes
        What the rank rests on, which the text then says; None where it was not asked for, or in
        version 0.1: the text then says what the item has to do with history and forecast.
    shelf
        Which items were ranked: "new" for those that nobody had taken yet.
    """

    item_id: str
    title: str
    rank: int
    score: float
    scorer_parts: Mapping[str, float]
    category_parts: Mapping[str, float]
    forecast_shares: Mapping[str, float]
    past_shares: Mapping[str, float]
    category_events: Mapping[str, int]
    statements: tuple[StatementText, ...]
    times_taken: int
    last_taken: datetime.date | None
    evidence: tuple[Evidence, ...]
    horizon: str
    edited_shares: Mapping[str, float] = field(default_factory=dict)
    edit_factors: Mapping[str, float] = field(default_factory=dict)
    model_text: str = ""
    rejection: str = ""
    verb: str = "taken"
    causes: Causes | None = None
    shelf: Shelf = "all"

    @property
    def text(self) -> str:
        """One to three sentences that say only what is in the numbers (plain text, no markup)."""
        return self.model_text or " ".join(variants[0] for variants in self.sentence_variants)

    @property
    def sentence_variants(self) -> tuple[tuple[str, ...], ...]:
        """Variants of each sentence of the text, the plainest first."""
        if self.causes is not None:
            found = [self.causes.sentences(self.item_id, self.verb)]
            if self.causes.is_new:
                found.insert(0, self.causes.new_sentences(self.verb))
            if self.causes.tilt_lifts:
                found.append(self._lift_sentences())
            if self.causes.rank != self.rank:  # in a list that is mixed to follow the forecast
                found.append((f"By score alone it is {format_ordinal(self.causes.rank)}.",))
            return tuple(found)
        of_0_1 = (self._past_sentences(), self._forecast_sentences(), self._scorers_sentences())
        return tuple(variants for variants in of_0_1 if variants)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields and the text, ready for JSON; days are ISO strings."""
        stored = {new: old for old, new in EXPLANATION_KEYS.items()}
        return {**rename_keys(to_plain_values(asdict(self)), stored), "text": self.text}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ItemExplanation:
        """Make it from the dict of `to_dict`; a text not of its fields stays, to be checked."""
        values, last = rename_keys(fields, EXPLANATION_KEYS), fields["last_taken"]
        text = values.pop("text")
        values["last_taken"] = last and datetime.date.fromisoformat(last)
        if values.get("causes") is not None:
            values["causes"] = Causes.from_dict(values["causes"])
        values["evidence"] = parse_evidence(fields["evidence"])
        values["statements"] = tuple(
            StatementText(**{**statement, "evidence": parse_evidence(statement["evidence"])})
            for statement in fields["statements"]
        )
        found = cls(**values)
        return found if found.text == text else replace(found, model_text=text)

    def _lift_sentences(self) -> tuple[str, ...]:
        """Say that edits, or the forecast, lift it, and where it would be without them."""
        assert self.causes is not None
        assert self.causes.rank_without_tilt is not None
        would_be = f"it would be {format_ordinal(self.causes.rank_without_tilt)}"
        if self.causes.tilt == "edits":
            raised = [
                name
                for name, share in self.edited_shares.items()
                if share > self.forecast_shares[name]
            ]
            raised.sort(key=lambda name: -self.edited_shares[name] / self.forecast_shares[name])
            moved = " and ".join(
                f"{name} is at {format_percent(self.edited_shares[name])} instead of "
                f"{format_percent(self.forecast_shares[name])}"
                for name in raised[:MAX_CATEGORIES_IN_SENTENCE]
            )
            if not moved:
                return (f"Your edits lift it: without them {would_be}.",)
            return (
                f"Your edits lift it: {moved}; without them {would_be}.",
                f"With your edits {moved}: without them {would_be}.",
            )
        lifting = sorted(self.category_parts, key=lambda name: -self.category_parts[name])
        shares = " and ".join(
            f"{name} at {self._shares_clause(name)}"
            for name in lifting[:MAX_CATEGORIES_IN_SENTENCE]
            if self.category_parts[name] > 0
        )
        if not shares:
            return (f"The forecast lowers others more: without the forecast {would_be}.",)
        return (
            f"The forecast of {shares} for the next {self.horizon} lifts it: without the "
            f"forecast {would_be}.",
            f"For the next {self.horizon} {shares} is forecast, and lifts it: without the "
            f"forecast {would_be}.",
        )

    def _past_sentences(self) -> tuple[str, ...]:
        verb = self.verb
        if self.last_taken is not None:
            did, last = verb[:1].upper() + verb[1:], format_day(self.last_taken)
            if self.times_taken == 1:
                return f"{did} once before, on {last}.", f"It was {verb} before, once: on {last}."
            return (
                f"{did} {self.times_taken} times before, last on {last}.",
                f"It was {verb} before, {self.times_taken} times, most recently on {last}.",
            )
        if not self.evidence:
            # A log has no event of an item without a category: it is not known who took it.
            never = (f"Neither it nor anything of its categories was {verb} before.",)
            return never if self.forecast_shares else ()
        category, n = next(entry for entry in self.category_events.items() if entry[1])
        which = f"the latest of {n} events of {category}" if n > 1 else f"one event of {category}"
        return (
            f"Not {verb} before; {which}: {self.evidence[0]}.",
            f"It would be a first; {which} so far: {self.evidence[0]}.",
        )

    def _forecast_sentences(self) -> tuple[str, ...]:
        if not self.forecast_shares:
            return ()
        named = sorted(self.forecast_shares, key=lambda name: name not in self.edit_factors)
        named = named[:MAX_CATEGORIES_IN_SENTENCE]
        shares = " and ".join(map(self._shares_clause, named))
        subject = "Its category" if len(self.forecast_shares) == 1 else "Of its categories,"
        verb, names = "is" if len(named) == 1 else "are", " and ".join(named)
        ahead = f"for the next {self.horizon}"
        return (
            f"{subject} {names} {verb} forecast at {shares} {ahead}{self._tilt_clause()}.",
            f"For {names}, {shares} {verb} forecast {ahead}{self._tilt_clause()}.",
        )

    def _shares_clause(self, name: str) -> str:
        ahead, past = self.forecast_shares[name], self.past_shares[name]
        shares = f"{format_percent(ahead)} ({format_percent(past)} so far"
        if name not in self.edited_shares:
            return f"{shares})"
        factor = self.edit_factors.get(name, 1.0)
        times = {0.0: ", muted", 1.0: ""}.get(factor, f", {factor:.4g} times as much")
        return f"{shares}; with your edits {format_percent(self.edited_shares[name])}{times})"

    def _tilt_clause(self) -> str:
        tilt = sum(self.category_parts.values())
        if not any(self.category_parts.values()):
            return ""
        subject = "edited forecast" if self.edited_shares else "forecast"
        if abs(tilt) < MIN_SHOWN_TILT:
            return f"; the {subject} moves its score by less than 0.01"
        return f"; the {subject} {'lifts' if tilt > 0 else 'lowers'} its score by {abs(tilt):.2f}"

    def _scorers_sentences(self) -> tuple[str, ...]:
        if any(self.category_parts.values()):
            return ()
        scorers = ", ".join(self.scorer_parts)
        reason = "The forecast adds nothing to its score" if self.forecast_shares else "No category"
        return (f"{reason}: its rank rests on the scorers ({scorers}).",)


def explain_item(
    ranking: Ranking,
    position: int,
    history: History,
    forecast: Forecast,
    edits: Sequence[Edit] = (),
    causes: Causes | None = None,
    shelf: Shelf = "all",
) -> ItemExplanation:
    """Explain one position (0-based) of a ranking.

    Parameters
    ----------
    forecast
        The forecast before any edit: statements are about it.
    edits
        Those of the ranking; edited shares are given beside the forecast ones.
    causes
        What `find_causes` found for the item.
    shelf
        Which items the ranking has.

    Raises
    ------
    ValueError
        If the ranking has no such position, or the edits cannot be applied.
    """
    if not 0 <= position < len(ranking.item_idx):
        raise ValueError(f"position {position} is outside a ranking of {len(ranking.item_idx)}")
    catalog, item = history.catalog, int(ranking.item_idx[position])
    names, ahead = catalog.categories, forecast.category_weights
    tilts, past = _entries(ranking.category_parts, position), ClaimFacts.of(history, forecast).past
    own = sorted(_entries(catalog.category_shares, item), key=lambda category: -ahead[category])
    active = active_edits(edits, catalog, history.cutoff)
    edited = apply_edits(forecast, edits, catalog, history.cutoff).category_weights
    same = np.flatnonzero(history.item_idx == item)[::-1] + int(history.offsets[0])
    evidence = cite_events(same[:MAX_EVENTS_SHOWN].tolist(), history)
    nearest = (category_evidence(category, history) for category in own)
    statements = statements_for(own, history, forecast)
    scorer_parts = ranking.scorer_parts[position].tolist()
    return ItemExplanation(
        item_id=catalog.ids[item],
        title=catalog.titles[item],
        rank=position + 1,
        score=float(ranking.scores[position]),
        scorer_parts=dict(zip(ranking.scorer_names, scorer_parts, strict=True)),
        category_parts={names[category]: part for category, part in tilts.items()},
        forecast_shares={names[category]: float(ahead[category]) for category in own},
        past_shares={names[category]: float(past[category]) for category in own},
        category_events={
            names[category]: len(category_event_ids(category, history)) for category in own
        },
        statements=tuple(render_statement(one, history, forecast) for one in statements),
        times_taken=len(same),
        last_taken=evidence[0].date if evidence else None,
        evidence=evidence or next((events for events in nearest if events), ()),
        horizon=format_horizon(history.period_length),
        edited_shares={names[c]: float(edited[c]) for c in own if active},
        edit_factors={names[c]: active[c].factor for c in own if c in active},
        verb=history.verb,
        causes=causes,
        shelf=shelf,
    )


def render_statement(statement: Statement, history: History, forecast: Forecast) -> StatementText:
    """Give a statement with the category's name, the titles of its events, and its sentence."""
    return StatementText(
        kind=statement.kind,
        category=history.catalog.categories[statement.category],
        change=statement.change,
        evidence=cite_events(statement.event_ids, history),
        text=statement_sentence(statement, history, forecast),
        probability=statement.probability,
        usual_rate=statement.usual_rate,
    )


def _entries(matrix: sparse.csr_array, row: int) -> dict[int, float]:
    """Give the stored entries of one row, by column."""
    stored = slice(*matrix.indptr[row : row + 2].tolist())
    return dict(zip(matrix.indices[stored].tolist(), matrix.data[stored].tolist(), strict=True))


def to_plain_values(value: Any) -> Any:
    """Make lists of tuples and ISO strings of days, at any depth."""
    if isinstance(value, dict):
        return {key: to_plain_values(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain_values(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime.date) else value
