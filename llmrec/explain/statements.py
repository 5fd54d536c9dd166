"""Statements about a forecast: their sentences, and the deterministic checker of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt

from llmrec.data.periods import ABSENCE_PERIODS, History
from llmrec.explain.facts import (
    MAX_CLAIMS,
    ClaimFacts,
    category_event_ids,
    distinct_evidence,
    format_percent,
    history_shares,
    join_evidence,
    seeded_rng,
)
from llmrec.forecast import STATEMENT_KINDS, Forecast, Statement, StatementKind

TOLERANCE = 1e-9  # numbers no further apart are the same
MAX_CITED_EVENTS = 5
MAX_TITLES_IN_SENTENCE = 2
_CHANGE_TEMPLATES = (
    ": {ahead} forecast against {past} so far",
    ", from {past} so far to a forecast {ahead}",
    ": {past} so far, {ahead} forecast",
)
# A sentence is an opening, its numbers and its evidence; any three of a kind can be combined.
SENTENCE_TEMPLATES: dict[StatementKind, tuple[Sequence[str], Sequence[str]]] = {
    "rising": (
        (
            "Interest in {name} is rising",
            "Expect more of {name}",
            "A larger share for {name}",
            "{name} should gain ground",
        ),
        _CHANGE_TEMPLATES,
    ),
    "fading": (
        (
            "Interest in {name} is fading",
            "Expect less of {name}",
            "A smaller share for {name}",
            "{name} should lose ground",
        ),
        _CHANGE_TEMPLATES,
    ),
    "steady": (
        (
            "Interest in {name} is steady",
            "Little change in {name}",
            "{name} should hold steady",
            "{name} as before",
        ),
        (
            ": {ahead} forecast, {past} so far, {verb} in {periods}",
            ", forecast at {ahead} after {past} so far, {verb} in {periods}",
            ": {verb} in {periods}, {past} so far and {ahead} forecast",
        ),
    ),
    "new": (
        (
            "Interest in {name} would be new",
            "{name} may come in for the first time",
            "Something new could be {name}",
            "A first time for {name}",
        ),
        (
            ": {ahead} forecast, never {verb} so far",
            ", forecast at {ahead} after none so far",
            ": never {verb} so far, {ahead} forecast",
        ),
    ),
    "returning": (
        (
            "Interest in {name} returns",
            "{name} should come back",
            "A return to {name}",
            "After a pause, {name} again",
        ),
        (
            ": {ahead} forecast after none in the last {absent}",
            ", forecast at {ahead} after none in the last {absent}",
            ": none in the last {absent}, {ahead} forecast",
        ),
    ),
}
EVIDENCE_TEMPLATES = (
    " (latest: {titles})",
    " (most recently {titles})",
    " (last {verb}: {titles})",
)


def change_direction(history: History, forecast: Forecast) -> npt.NDArray[np.int64]:
    """(n_categories,) 1 where the forecast is clearly above the past, -1 clearly below, else 0."""
    facts = ClaimFacts.of(history, forecast)
    return np.where(np.abs(facts.change) >= facts.min_change, np.sign(facts.change), 0).astype(
        np.int64
    )


def check_statement(statement: Statement, history: History, forecast: Forecast) -> str | None:
    """Describe the first part that history and forecast do not support; None if there is none."""
    return _check(statement, history, ClaimFacts.of(history, forecast))


def make_statement(
    kind: StatementKind, category: int, history: History, forecast: Forecast
) -> Statement:
    """Make a statement with its true change and newest events; its kind is not checked."""
    change = float(forecast.category_weights[category] - history_shares(history)[category])
    events = category_event_ids(category, history)[:MAX_CITED_EVENTS]
    return Statement(kind, category, change, tuple(events.tolist()))


def derive_statements(
    history: History, forecast: Forecast, *, limit: int = MAX_CLAIMS
) -> tuple[Statement, ...]:
    """Derive the most significant true statements, one a category at most.

    They are ordered by change relative to its noise (steady ones last, by share); the kinds take
    turns, so that the first rising and the first fading one are included, if the limit allows.
    """
    facts = ClaimFacts.of(history, forecast)
    chosen = facts.top_claims(np.abs(facts.change) / facts.noise, limit)
    return tuple(make_statement(kind, category, history, forecast) for kind, category in chosen)


def statements_for(
    categories: Iterable[int], history: History, forecast: Forecast
) -> tuple[Statement, ...]:
    """Give a true statement about each of these categories, if there is any, in their order.

    It is the forecast's own statement where that is supported.
    """
    facts = ClaimFacts.of(history, forecast)
    supported = {kind: facts.supported(kind) for kind in STATEMENT_KINDS}
    own = {statement.category: statement for statement in forecast.statements}
    found = []
    for category in categories:
        kinds = [kind for kind in STATEMENT_KINDS if supported[kind][category]]
        if category in own and _check(own[category], history, facts) is None:
            found.append(own[category])
        elif kinds:
            found.append(make_statement(kinds[0], category, history, forecast))
    return tuple(found)


def check_claims(
    claims: Iterable[tuple[StatementKind, int]], history: History, forecast: Forecast
) -> tuple[tuple[Statement, ...], tuple[str, ...]]:
    """Check a model's claims: the accepted statements, and a reason for each rejected claim."""
    facts = ClaimFacts.of(history, forecast)
    accepted: dict[int, Statement] = {}
    rejected = []
    for kind, category in claims:
        statement = Statement(kind, category, 0.0)
        if 0 <= category < len(facts.past):
            statement = make_statement(kind, category, history, forecast)
        reason = _check(statement, history, facts)
        if reason is None and category in accepted:
            reason = f"{history.catalog.categories[category]}: said twice"
        if reason is None:
            accepted[category] = statement
        else:
            rejected.append(reason)
    return tuple(accepted.values()), tuple(rejected)


def statement_sentence(
    statement: Statement, history: History, forecast: Forecast, phrase: str = ""
) -> str:
    """Write a statement as one plain-text sentence with its numbers and its newest evidence.

    It begins with the category and the ``phrase``, if there is one; the rest is sampled by user,
    category and kind.
    """
    facts, kind, category = ClaimFacts.of(history, forecast), statement.kind, statement.category
    name = history.catalog.categories[category]
    rng = seeded_rng(history.user_id, name, kind)
    opening, numbers, latest = (
        _sample(texts, rng) for texts in (*SENTENCE_TEMPLATES[kind], EVIDENCE_TEMPLATES)
    )
    cited = distinct_evidence(statement.event_ids, history)[:MAX_TITLES_IN_SENTENCE]
    opening = "{name} {phrase}" if phrase else opening
    return f"{opening}{numbers}{latest if cited else ''}.".format(
        name=name,
        phrase=phrase,
        verb=history.verb,
        ahead=format_percent(facts.expected[category]),
        past=format_percent(facts.past[category]),
        periods=f"{facts.n_periods_with[category]} of {facts.n_periods} active periods",
        absent=f"{ABSENCE_PERIODS} active periods",
        titles=join_evidence(cited) if cited else "",
    )


def _sample(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]


def _check(statement: Statement, history: History, facts: ClaimFacts) -> str | None:
    kind, category, names = statement.kind, statement.category, history.catalog.categories
    if not 0 <= category < len(names):
        return f"category {category} is not one of the catalog's {len(names)}"
    if kind not in STATEMENT_KINDS:
        return f"{names[category]}: {kind!r} is no kind of statement ({', '.join(STATEMENT_KINDS)})"
    expected, past = format_percent(facts.expected[category]), format_percent(facts.past[category])
    shares = f"{expected} forecast, {past} so far"
    for mask, reason in facts.conditions(kind):
        if not mask[category]:
            return f"{names[category]} is not {kind}: {reason} ({shares})"
    if not abs(statement.change - facts.change[category]) <= TOLERANCE:
        true = f"{facts.change[category]:+.4f}"
        return f"{names[category]}: the change is {true}, not {statement.change:+.4f} ({shares})"
    return _check_evidence(statement, history)


def _check_evidence(statement: Statement, history: History) -> str | None:
    name, cited = history.catalog.categories[statement.category], statement.event_ids
    if statement.kind == "new":
        return f"{name}: what was never {history.verb} has no events to cite" if cited else None
    if not cited:
        return f"{name}: no event is cited"
    if len(set(cited)) < len(cited):
        return f"{name}: an event is cited twice"
    own = category_event_ids(statement.category, history).tolist()
    for event in cited:
        if event not in history.event_ids:
            return f"{name}: event {event} is not in the history of user {history.user_id!r}"
        if event not in own:
            return f"{name}: event {event} is of another category"
    for event, newest in zip(cited, own, strict=False):
        if event != newest:
            return f"{name}: event {newest} is newer than event {event}, which is cited as latest"
    return None
