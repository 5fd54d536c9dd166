"""The checker of explanations: everything is recomputed from log, forecast and ranking."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from llmrec.data.catalog import Catalog
from llmrec.data.periods import History
from llmrec.explain.counterfactual import RemovalCounterfactual, WhyNot, find_removal, why_not
from llmrec.explain.evidence import Evidence, to_date
from llmrec.explain.facts import format_horizon
from llmrec.explain.item import ItemExplanation, StatementText
from llmrec.explain.reword import unsupported_text
from llmrec.explain.statement_sentences import statement_sentence
from llmrec.explain.statements import TOLERANCE, check_statement
from llmrec.explain.verify_causes import check_causes
from llmrec.forecast import Forecast, Statement
from llmrec.ranking.edits import Edit, apply_edits
from llmrec.ranking.ranking import Ranking, Reranker, rank_of
from llmrec.ranking.removal import RemovalRanker
from llmrec.types import IntArray


def check_item(
    explanation: ItemExplanation,
    ranking: Ranking,
    history: History,
    forecast: Forecast,
    edits: Sequence[Edit] = (),
    removal: RemovalRanker | None = None,
) -> tuple[str, ...]:
    """Describe all errors of an explanation: what log, forecast and ranking do not support.

    Each number is recomputed from the log's arrays, not by the code that explains. The parameters
    are those of `explain_item`. Where ``removal`` is given, `check_causes` checks the causes, too.
    """
    catalog, title = history.catalog, explanation.title
    item = _item_index(explanation.item_id, catalog)
    rank = rank_of(ranking, item)
    if item < 0 or rank is None:
        return (f"{title}: item {explanation.item_id!r} is not in the ranking",)
    true = {
        "title": catalog.titles[item],
        "horizon": format_horizon(history.period_length),
        "verb": history.verb,
        "shelf": removal.shelf if removal else explanation.shelf,
        **_ranking_fields(ranking, rank - 1, history),
        **_history_fields(item, history, forecast),
        **_edit_fields(item, history, forecast, edits),
    }
    errors = [
        f"{title}: {field} is {value!r}, not {getattr(explanation, field)!r}"
        for field, value in true.items()
        if not _equal(getattr(explanation, field), value)
    ]
    errors += check_evidence(explanation, history)
    errors += _wrong_evidence(explanation, item, history)
    if explanation.causes and removal:
        errors += [f"{title}: {error}" for error in check_causes(explanation.causes, item, removal)]
    for statement in explanation.statements:
        errors += _check_statement_text(statement, explanation, history, forecast)
    if explanation.model_text and (error := unsupported_text(explanation.model_text, explanation)):
        errors.append(f"{title}: {error}")
    if explanation.model_text and explanation.rejection:
        errors.append(f"{title}: the model's text is both shown and rejected")
    return tuple(errors)


def check_evidence(explanation: ItemExplanation, history: History) -> tuple[str, ...]:
    """Describe the events that an explanation cites and the history does not have.

    An event is found by its item and day, so a stored explanation can be checked against a later
    log; an event at another position of the log is an error too.
    """
    of_statements = (event for one in explanation.statements for event in one.evidence)
    causes = explanation.causes.named if explanation.causes else ()
    of_causes = (cause.latest for cause in causes)
    events = dict.fromkeys([*explanation.evidence, *of_statements, *of_causes])
    return tuple(error for event in events if (error := _check_event(event, history)))


def check_change(
    change: WhyNot | RemovalCounterfactual,
    item_idx: int,
    rerank: Reranker,
    history: History,
    edits: Sequence[Edit] = (),
) -> str | None:
    """Search a counterfactual again, by ranking again, and describe what differs; None if nothing.

    The parameters are those of `why_not`.
    """
    k, catalog = change.k, history.catalog
    again: WhyNot | RemovalCounterfactual
    if isinstance(change, WhyNot):
        again = why_not(item_idx, rerank, k, catalog, history, edits)
    else:
        again = find_removal(item_idx, rerank, k, catalog, history, edits)
    fields = [name for name, true in vars(again).items() if not _equal(getattr(change, name), true)]
    return f"{', '.join(fields)} differ when ranked again: {again.text}" if fields else None


def _ranking_fields(ranking: Ranking, position: int, history: History) -> dict[str, Any]:
    tilts = ranking.category_parts[[position]].toarray()[0]
    item = int(ranking.item_idx[position])
    names = history.catalog.categories_of(item)
    parts = ranking.scorer_parts[position]
    return {
        "rank": position + 1,
        "score": float(parts.sum() + tilts.sum()),
        "scorer_parts": dict(zip(ranking.scorer_names, parts.tolist(), strict=True)),
        "category_parts": {name: tilts[history.catalog.categories.index(name)] for name in names},
    }


def _history_fields(item: int, history: History, forecast: Forecast) -> dict[str, Any]:
    names, shares = history.catalog.categories, history.catalog.category_shares
    taken = shares[history.item_idx]
    past = taken.sum(axis=0) / max(taken.sum(), 1)
    events = np.bincount(taken.indices, minlength=len(names))
    own = np.flatnonzero(shares[[item]].toarray()[0])
    item_events = _events_of(item, history)
    return {
        "forecast_shares": {names[c]: float(forecast.category_weights[c]) for c in own},
        "past_shares": {names[c]: float(past[c]) for c in own},
        "category_events": {names[c]: int(events[c]) for c in own},
        "times_taken": len(item_events),
        "last_taken": to_date(history.log.timestamp[item_events[-1]]) if len(item_events) else None,
    }


def _edit_fields(
    item: int, history: History, forecast: Forecast, edits: Sequence[Edit]
) -> dict[str, Any]:
    catalog, at = history.catalog, history.cutoff
    weights = apply_edits(forecast, edits, catalog, at).category_weights
    shares = dict(zip(catalog.categories, weights.tolist(), strict=True))
    factors = {edit.category: edit.factor for edit in edits if edit.is_active(at)}
    own = catalog.categories_of(item)
    return {
        "edited_shares": {name: shares[name] for name in own} if factors else {},
        "edit_factors": {name: factors[name] for name in own if name in factors},
    }


def _item_index(item_id: str, catalog: Catalog) -> int:
    """Give the index of an item; -1 if it is not in the catalog."""
    return catalog.item_index(item_id) if item_id in catalog.item_ids else -1


def _events_of(item: int, history: History) -> IntArray:
    """(n,) log positions of the history's events of an item, oldest first."""
    return np.flatnonzero(history.item_idx == item) + int(history.offsets[0])


def _check_event(event: Evidence, history: History) -> str | None:
    log, catalog = history.log, history.catalog
    item = _item_index(event.item_id, catalog)
    days = {int(at): to_date(log.timestamp[at]) for at in _events_of(item, history)}
    same_day = [at for at, date in days.items() if date == event.date]
    if not same_day:
        return (
            f"{event} is not in the history of user {history.user_id!r}: it was forgotten, or "
            "never there"
        )
    if event.title != catalog.titles[item]:
        return f"item {event.item_id!r} is called {catalog.titles[item]}, not {event.title}"
    if event.event_id not in same_day:
        return f"{event} is event {same_day[-1]} of the log, not event {event.event_id}"
    return None


def _wrong_evidence(explanation: ItemExplanation, item: int, history: History) -> Iterator[str]:
    """Describe evidence that is in the log and does not fit: not the newest, or of other items."""
    cited = [event.event_id for event in explanation.evidence]
    possible = _events_of(item, history)
    if not len(possible):
        names = history.catalog.categories
        counted = explanation.category_events.items()
        first = next((names.index(name) for name, n in counted if n and name in names), None)
        if first is not None:
            of_first = history.catalog.category_shares[:, [first]].toarray()[:, 0] > 0
            possible = np.flatnonzero(of_first[history.item_idx]) + int(history.offsets[0])
    if bool(cited) != bool(len(possible)) or (cited and cited[0] != possible[-1]):
        yield f"{explanation.title}: the latest event behind it is not the one that is cited"
    if len(set(cited)) < len(cited):
        yield f"{explanation.title}: an event is cited twice"
    if others := set(cited) - set(possible.tolist()):
        yield f"{explanation.title}: event {min(others)} is not one of it, or of its category"


def _check_statement_text(
    text: StatementText, explanation: ItemExplanation, history: History, forecast: Forecast
) -> Iterator[str]:
    names = history.catalog.categories
    if text.category not in explanation.forecast_shares or text.category not in names:
        yield f"{explanation.title}: {text.category} is none of its categories"
        return
    events = tuple(event.event_id for event in text.evidence)
    chance = (text.probability, text.usual_rate)
    statement = Statement(text.kind, names.index(text.category), text.change, events, *chance)
    if error := check_statement(statement, history, forecast):
        yield f"{explanation.title}: {error}"
    elif text.text != statement_sentence(statement, history, forecast):
        yield f"{explanation.title}: {text.text!r} is not the sentence of its statement"


def _equal(value: Any, true: Any) -> bool:
    """Whether two values are equal, numbers to `TOLERANCE`."""
    if isinstance(true, Mapping):
        return set(value) == set(true) and all(_equal(value[key], true[key]) for key in true)
    if isinstance(true, float):
        return value is not None and math.isclose(value, true, rel_tol=0, abs_tol=TOLERANCE)
    return bool(value == true)
