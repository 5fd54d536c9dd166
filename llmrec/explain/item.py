"""Why an item has its rank: its score, its forecast, its evidence; in plain or in model words.

A language model that rewords an explanation chooses among true sentences, and is checked.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from llmrec.data.periods import History
from llmrec.explain.facts import (
    EVENTS_SHOWN,
    Evidence,
    category_evidence,
    cite_events,
    events_of,
    format_day,
    format_horizon,
    format_percent,
    history_shares,
)
from llmrec.explain.statements import statement_sentence, statements_for
from llmrec.forecast import Forecast, Statement, StatementKind
from llmrec.language.grammar import sentences_grammar
from llmrec.ranking.edits import Edit, active_edits, apply_edits
from llmrec.ranking.ranking import Ranking
from llmrec.versions import EXPLANATION_KEYS, renamed_keys

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel


CATEGORIES_IN_SENTENCE = 2
MIN_SHOWN_TILT = 0.005  # less than this would be written as 0.00


@dataclass(frozen=True)
class StatementText:
    """A statement about one of an item's categories, with names for numbers: fit to be kept.

    ``evidence`` are the statement's events: they are found again by item and day in a log where
    they stand elsewhere, and missed by name in one that has lost them.
    """

    kind: StatementKind
    category: str
    change: float
    evidence: tuple[Evidence, ...]
    text: str


@dataclass(frozen=True)
class ItemExplanation:
    """Everything behind one position of a ranking.

    Attributes
    ----------
    rank
        1-based.
    score
        The sum of all ``scorer_parts`` and ``category_parts``, to 1e-9.
    scorer_parts
        Scorer name to its part of the score.
    category_parts
        Category name to the part that the forecast's tilt adds.
    forecast_shares, past_shares
        Share of each of the item's categories: forecast, and over the whole history; largest
        forecast first.
    category_events
        How many events of the history are of each of the item's categories.
    statements
        What is true of the forecast of its categories, one each at most: what the forecast's
        description says, else what counting derives.
    times_taken, last_taken
        How often the history holds this very item, and the day of the last time.
    evidence
        Events of the item, newest first; if there are none, events of the first of its categories
        that has any.
    horizon
        What the forecast is about: "28 days".
    edited_shares
        Share of each of the item's categories with the edits ranked by; empty if none counts.
    edit_factors
        Factor of the edit of each of the item's categories that is edited itself.
    model_text
        The text as the language model put it, checked; "" where it was not asked or did not hold.
    rejection
        Why the model's text is not shown; "" if there is nothing to refuse.
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

    @property
    def text(self) -> str:
        """One to three sentences that say only what is in the numbers (plain text, no markup)."""
        return self.model_text or " ".join(ways[0] for ways in self.sentence_variants)

    @property
    def sentence_variants(self) -> tuple[tuple[str, ...], ...]:
        """Each fact of the text as one sentence, in the ways it may be put; the plainest first."""
        found = (self._past_sentences(), self._forecast_sentences(), self._scorers_sentences())
        return tuple(ways for ways in found if ways)

    def to_dict(self) -> dict[str, Any]:
        """Give the fields and the text, ready for JSON; days are ISO strings."""
        stored = {new: old for old, new in EXPLANATION_KEYS.items()}
        return {**renamed_keys(_plain(asdict(self)), stored), "text": self.text}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> ItemExplanation:
        """Read what `to_dict` gave; a text that is not that of the fields stays, to be checked."""
        given, last = renamed_keys(fields, EXPLANATION_KEYS), fields["last_taken"]
        text = given.pop("text")
        given["last_taken"] = last and datetime.date.fromisoformat(last)
        given["evidence"] = _events(fields["evidence"])
        given["statements"] = tuple(
            StatementText(**{**told, "evidence": _events(told["evidence"])})
            for told in fields["statements"]
        )
        made = cls(**given)
        return made if made.text == text else replace(made, model_text=text)

    def _past_sentences(self) -> tuple[str, ...]:
        if self.last_taken is not None:
            last = format_day(self.last_taken)
            if self.times_taken == 1:
                return f"Taken once before, on {last}.", f"It was taken before, once: on {last}."
            return (
                f"Taken {self.times_taken} times before, last on {last}.",
                f"It was taken before, {self.times_taken} times, most recently on {last}.",
            )
        if not self.evidence:
            # The log keeps no event of an item without a category: there is nothing to say of it.
            never = ("Neither it nor anything of its categories was taken before.",)
            return never if self.forecast_shares else ()
        category, n = next(entry for entry in self.category_events.items() if entry[1])
        which = f"the latest of {n} events of {category}" if n > 1 else f"one event of {category}"
        return (
            f"Not taken before; {which}: {self.evidence[0]}.",
            f"It would be a first; {which} so far: {self.evidence[0]}.",
        )

    def _forecast_sentences(self) -> tuple[str, ...]:
        if not self.forecast_shares:
            return ()
        named = sorted(self.forecast_shares, key=lambda name: name not in self.edit_factors)
        named = named[:CATEGORIES_IN_SENTENCE]
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
        said = f"{format_percent(ahead)} ({format_percent(past)} so far"
        if name not in self.edited_shares:
            return f"{said})"
        factor = self.edit_factors.get(name, 1.0)
        times = {0.0: ", muted", 1.0: ""}.get(factor, f", {factor:.4g} times as much")
        return f"{said}; with your edits {format_percent(self.edited_shares[name])}{times})"

    def _tilt_clause(self) -> str:
        tilt = sum(self.category_parts.values())
        if not any(self.category_parts.values()):
            return ""
        lifts = "edited forecast" if self.edited_shares else "forecast"
        if abs(tilt) < MIN_SHOWN_TILT:
            return f"; the {lifts} moves its score by less than 0.01"
        return f"; the {lifts} {'lifts' if tilt > 0 else 'lowers'} its score by {abs(tilt):.2f}"

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
) -> ItemExplanation:
    """Explain one position (0-based) of a ranking.

    Parameters
    ----------
    forecast
        What the statements are about: the forecast before any edit.
    edits
        Those that the ranking was made with: what they make of the forecast is told beside it.

    Raises
    ------
    ValueError
        If the ranking has no such position, or the edits cannot be applied.
    """
    if not 0 <= position < len(ranking.item_idx):
        raise ValueError(f"position {position} is outside a ranking of {len(ranking.item_idx)}")
    catalog, item = history.catalog, int(ranking.item_idx[position])
    names, past, ahead = catalog.categories, history_shares(history), forecast.category_weights
    tilts = _row(ranking.category_parts, position)
    about = sorted(_row(catalog.category_shares, item), key=lambda category: -ahead[category])
    active = active_edits(edits, catalog, history.cutoff)
    edited = apply_edits(forecast, edits, catalog, history.cutoff).category_weights
    same = np.flatnonzero(history.item_idx == item)[::-1] + int(history.offsets[0])
    evidence = cite_events(same[:EVENTS_SHOWN].tolist(), history)
    nearest = (category_evidence(category, history) for category in about)
    return ItemExplanation(
        item_id=str(catalog.item_ids[item]),
        title=catalog.titles[item],
        rank=position + 1,
        score=float(ranking.scores[position]),
        scorer_parts=dict(
            zip(ranking.scorer_names, ranking.scorer_parts[position].tolist(), strict=True)
        ),
        category_parts={names[category]: part for category, part in tilts.items()},
        forecast_shares={names[category]: float(ahead[category]) for category in about},
        past_shares={names[category]: float(past[category]) for category in about},
        category_events={names[category]: len(events_of(category, history)) for category in about},
        statements=tuple(
            render_statement(statement, history, forecast)
            for statement in statements_for(about, history, forecast)
        ),
        times_taken=len(same),
        last_taken=evidence[0].date if evidence else None,
        evidence=evidence or next((events for events in nearest if events), ()),
        horizon=format_horizon(history.period_length),
        edited_shares={names[c]: float(edited[c]) for c in about if active},
        edit_factors={names[c]: active[c].factor for c in about if c in active},
    )


def render_statement(statement: Statement, history: History, forecast: Forecast) -> StatementText:
    """Write a statement out: the category's name, the titles of its events, its sentence."""
    return StatementText(
        kind=statement.kind,
        category=history.catalog.categories[statement.category],
        change=statement.change,
        evidence=cite_events(statement.event_ids, history),
        text=statement_sentence(statement, history, forecast),
    )


def _row(matrix: sparse.csr_array, row: int) -> dict[int, float]:
    """Give the stored entries of one row, by column."""
    start, stop = matrix.indptr[row : row + 2]
    return dict(
        zip(matrix.indices[start:stop].tolist(), matrix.data[start:stop].tolist(), strict=True)
    )


def _events(rows: Sequence[Mapping[str, Any]]) -> tuple[Evidence, ...]:
    return tuple(
        Evidence(**{**row, "date": datetime.date.fromisoformat(row["date"])}) for row in rows
    )


def _plain(value: Any) -> Any:
    """Write days as ISO strings, wherever they stand."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, datetime.date) else value


def reword(model: LanguageModel, explanations: Sequence[ItemExplanation]) -> list[ItemExplanation]:
    """Give the explanations with texts that the model made of what is true of each.

    It chooses how each fact of the text is put, and which statements of the forecast follow. Where
    what it wrote does not hold, the text stays the plain one and ``refused`` says why.
    """
    grammars = [
        sentences_grammar(made.sentence_variants, _statements(made)) for made in explanations
    ]
    prompts = [_prompt(made) for made in explanations]
    lines = model.generate(prompts, constrain=grammars) if prompts else []
    return [
        replace(made, model_text="", rejection=lie)
        if (lie := unsupported_text(line.text, made))
        else replace(made, model_text=line.text.strip(), rejection="")
        for made, line in zip(explanations, lines, strict=True)
    ]


def wording_note(explanations: Sequence[ItemExplanation]) -> str:
    """Say how many texts of a list are the model's, and how many did not hold; "" if none is asked.

    One short line (plain text, no markup).
    """
    said = sum(bool(made.model_text) for made in explanations)
    refused = sum(bool(made.rejection) for made in explanations)
    if not said + refused:
        return ""
    kept = f"{said} of {len(explanations)} reasons are in the model's words"
    return f"{kept}; {refused} did not hold and are not shown."


def unsupported_text(text: str, explanation: ItemExplanation) -> str:
    """Say what of a text is none of the true sentences of an explanation, each once; "" if all is.

    The explanation's own numbers are taken for true: `check_item` checks them.
    """
    rest = text.strip()
    if not rest:
        return "nothing is said"
    for ways in (*explanation.sentence_variants, *((each,) for each in _statements(explanation))):
        said = max((way for way in ways if rest.startswith(way)), key=len, default="")
        rest = rest.removeprefix(said).lstrip()
    return f"{rest[:80]!r} is no true sentence here" if rest else ""


def _statements(explanation: ItemExplanation) -> list[str]:
    return [told.text for told in explanation.statements]


def _prompt(explanation: ItemExplanation) -> str:
    plain = [ways[0] for ways in explanation.sentence_variants]
    facts = "\n".join(f"- {sentence}" for sentence in [*plain, *_statements(explanation)])
    return f"What is known of {explanation.title}:\n{facts}\nWhy it is on the list:"
