"""Statements about a forecast, and the deterministic checker of each."""

from __future__ import annotations

from collections.abc import Iterable
from typing import get_args

import numpy as np
import numpy.typing as npt

from llmrec.data.periods import History
from llmrec.explain.evidence import category_event_ids
from llmrec.explain.facts import MAX_CLAIMS, ClaimFacts, format_percent
from llmrec.forecast import Forecast, Statement, StatementKind

TOLERANCE = 1e-9  # numbers no further apart are the same
MAX_CITED_EVENTS = 5
KNOWN_KINDS: tuple[StatementKind, ...] = get_args(StatementKind)


def change_direction(history: History, forecast: Forecast) -> npt.NDArray[np.int64]:
    """(n_categories,) 1 where the forecast is clearly above the past, -1 clearly below, else 0."""
    facts = ClaimFacts.of(history, forecast)
    return np.where(np.abs(facts.change) >= facts.min_change, np.sign(facts.change), 0).astype(
        np.int64
    )


def check_statement(statement: Statement, history: History, forecast: Forecast) -> str | None:
    """Describe the first part that history and forecast do not support; None if there is none.

    Where the forecast gives probabilities, a statement has to have its own. Where it gives none, as
    in version 0.1, it is checked by what that version had.
    """
    return check_against(statement, history, ClaimFacts.of(history, forecast))


def make_statement(
    kind: StatementKind, category: int, history: History, forecast: Forecast
) -> Statement:
    """Make a statement with its true numbers and newest events; its kind is not checked."""
    return statement_of(kind, category, history, ClaimFacts.of(history, forecast))


def statement_of(
    kind: StatementKind, category: int, history: History, facts: ClaimFacts
) -> Statement:
    """Make a statement as `make_statement` does, of facts that are known."""
    events = category_event_ids(category, history)[:MAX_CITED_EVENTS].tolist()
    return Statement(
        kind,
        category,
        float(facts.change[category]),
        tuple(events),
        *_chance(kind, category, facts),
    )


def derive_statements(
    history: History, forecast: Forecast, *, limit: int = MAX_CLAIMS
) -> tuple[Statement, ...]:
    """Derive the true statements that tell most, one a category at most.

    Where statements have probabilities, see `choose_statements`; else they are ordered by change
    relative to its noise, and the kinds take turns, so that the first rising and the first fading
    one are included, if the limit allows.
    """
    facts = ClaimFacts.of(history, forecast)
    return tuple(statement_of(*claim, history, facts) for claim in facts.chosen_claims(limit))


def statements_for(
    categories: Iterable[int], history: History, forecast: Forecast
) -> tuple[Statement, ...]:
    """Give a true statement about each of these categories, if there is any, in their order.

    It is the forecast's own statement where that is supported.
    """
    facts = ClaimFacts.of(history, forecast)
    own = {statement.category: statement for statement in forecast.statements}
    found = []
    for category in categories:
        if category in own and check_against(own[category], history, facts) is None:
            found.append(own[category])
        elif kind := facts.best_claim(category):
            found.append(statement_of(kind, category, history, facts))
    return tuple(found)


def check_claims(
    claims: Iterable[tuple[StatementKind, int]], history: History, facts: ClaimFacts
) -> tuple[tuple[Statement, ...], tuple[str, ...]]:
    """Check a model's claims: the accepted statements, and a reason for each rejected claim."""
    accepted: dict[int, Statement] = {}
    rejected = []
    for kind, category in claims:
        statement = Statement(kind, category, 0.0)
        if 0 <= category < len(facts.past):
            statement = statement_of(kind, category, history, facts)
        reason = check_against(statement, history, facts)
        if reason is None and category in accepted:
            reason = f"{history.catalog.categories[category]}: said twice"
        if reason is None:
            accepted[category] = statement
        else:
            rejected.append(reason)
    return tuple(accepted.values()), tuple(rejected)


def _chance(
    kind: StatementKind, category: int, facts: ClaimFacts
) -> tuple[float | None, float | None]:
    """Give a statement's probability and the usual rate of its kind."""
    if facts.chances is None or kind not in facts.chances.usual_rates:
        return None, None
    return float(facts.chances.probabilities[kind][category]), facts.chances.usual_rates[kind]


def check_against(statement: Statement, history: History, facts: ClaimFacts) -> str | None:
    """Check a statement as `check_statement` does, by facts that are known."""
    kind, category, names = statement.kind, statement.category, history.catalog.categories
    if not 0 <= category < len(names):
        return f"category {category} is not one of the catalog's {len(names)}"
    if kind not in KNOWN_KINDS:
        return f"{names[category]}: {kind!r} is no kind of statement ({', '.join(KNOWN_KINDS)})"
    expected, past = format_percent(facts.expected[category]), format_percent(facts.past[category])
    shares = f"{expected} forecast, {past} so far"
    for mask, reason in facts.conditions(kind):
        if not mask[category]:
            return f"{names[category]} is not {kind}: {reason} ({shares})"
    if not abs(statement.change - facts.change[category]) <= TOLERANCE:
        true = f"{facts.change[category]:+.4f}"
        return f"{names[category]}: the change is {true}, not {statement.change:+.4f} ({shares})"
    return _check_chance(statement, facts) or _check_evidence(statement, history)


def _check_chance(statement: Statement, facts: ClaimFacts) -> str | None:
    """Check the numbers of a statement that says how likely it is."""
    said = (statement.probability, statement.usual_rate)
    true = _chance(statement.kind, statement.category, facts)
    if said == true == (None, None):
        return None
    for what, number, value in zip(("probability", "usual rate"), said, true, strict=True):
        if number is None or value is None or not abs(number - value) <= TOLERANCE:
            return f"the {what} of {statement.kind!r} is {value}, not {number}"
    return None


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
