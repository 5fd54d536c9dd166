"""Lies planted in true statements and explanations: what a checker must catch, each with a name."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice

import numpy as np

from llmrec.data.periods import History
from llmrec.explain.counterfactual import RemovalCounterfactual, WhyNot
from llmrec.explain.facts import Evidence, cite_events, history_shares
from llmrec.explain.item import ItemExplanation, StatementText, render_statement
from llmrec.explain.statements import TOLERANCE
from llmrec.forecast import Forecast, Statement, StatementKind

# What cannot be true beside a kind, by definition; fading and returning can, so can steady and
# returning.
EXCLUDED: dict[StatementKind, tuple[StatementKind, ...]] = {
    "rising": ("fading", "steady", "new", "returning"),
    "fading": ("rising", "steady", "new"),
    "steady": ("rising", "fading", "new"),
    "new": ("rising", "fading", "steady", "returning"),
    "returning": ("rising", "new"),
}
MOST_CATEGORIES = 4
A_LITTLE = 0.001  # of a share: no text shows it
PLACES = 12  # of a description in which another number is put


def statement_lies(
    true: Statement, history: History, forecast: Forecast
) -> Iterator[tuple[str, Statement]]:
    """Turn a true statement into lies of every sort."""
    change = forecast.category_weights - history_shares(history)
    for kind in EXCLUDED[true.kind]:
        yield "direction", replace(true, kind=kind)
    others = np.flatnonzero(np.abs(change - true.change) > TOLERANCE)
    for category in [*others[:MOST_CATEGORIES].tolist(), len(change)]:
        yield "category", replace(true, category=category)
    for wrong in (true.change + A_LITTLE, true.change - A_LITTLE, float("nan")):
        yield "number", replace(true, change=wrong)
    if abs(true.change) > TOLERANCE:
        yield "direction", replace(true, change=-true.change)
    for name, event in _no_evidence(true.category, history).items():
        yield name, replace(true, event_ids=(event, *true.event_ids[1:]))
        yield name, replace(true, event_ids=(*true.event_ids, event))
    if true.event_ids:
        yield "evidence: twice", replace(true, event_ids=(*true.event_ids, true.event_ids[-1]))
        yield "evidence: none", replace(true, event_ids=())
    if len(true.event_ids) > 1:
        yield "evidence: not the latest", replace(true, event_ids=true.event_ids[1:])


def item_lies(
    true: ItemExplanation, history: History, forecast: Forecast
) -> Iterator[tuple[str, ItemExplanation]]:
    """Turn a true explanation into lies of every sort, one at a time."""
    for name, lie in (
        *_plain_lies(true, history),
        *_part_lies(true),
        *_event_lies(true, history),
        *_told_lies(true, history, forecast),
        *_edit_lies(true),
        *_text_lies(true),
    ):
        if lie != true:
            yield name, lie


def description_lies(true: Forecast) -> Iterator[tuple[str, Forecast]]:
    """Put another number into a description, leave a sentence out, or add one."""
    for text in islice(_renumbered(true.description), PLACES):
        yield "number", replace(true, description=text)
    yield "text", replace(true, description=f"{true.description} Everybody loves it.")
    if true.statements:
        yield "text", replace(true, statements=true.statements[1:])


def change_lies(
    true: RemovalCounterfactual | WhyNot,
) -> Iterator[tuple[str, RemovalCounterfactual | WhyNot]]:
    """Claim another rank, a change that is too small, larger than needed, or none."""
    yield "rank", replace(true, rank=(true.rank or 0) + 1)
    if true.factor is not None and true.rank_after is not None:
        yield "rank after", replace(true, rank_after=true.rank_after + 1)
        yield "change", replace(true, factor=round(true.factor + 0.01, 2))
        yield "change", replace(true, factor=round(true.factor - 0.01, 2))
        yield "change", replace(true, factor=None, rank_after=None)
    if isinstance(true, WhyNot):
        yield "gap", replace(true, gap=true.gap + 0.01)


def _no_evidence(category: int, history: History) -> dict[str, int]:
    """One log position a sort of event that is no evidence of a category, where there is one."""
    log, shares = history.log, history.catalog.category_shares
    first, last = (int(end) for end in log.user_offsets[history.user_idx : history.user_idx + 2])
    of_category = shares[:, [category]].toarray()[:, 0] > 0
    events = np.arange(len(log))
    own = (events >= first) & (events < history.event_ids.stop)
    about = of_category[log.item_idx]
    sorts = {
        "evidence: another category": own & ~about,
        "evidence: another person": about & ((events < first) | (events >= last)),
        "evidence: after the cutoff": about & (events >= history.event_ids.stop) & (events < last),
    }
    return {name: int(np.flatnonzero(mask)[-1]) for name, mask in sorts.items() if mask.any()}


def _plain_lies(true: ItemExplanation, history: History) -> Iterator[tuple[str, ItemExplanation]]:
    ids, titles = history.catalog.item_ids, history.catalog.titles
    other = (history.catalog.item_index(true.item_id) + 1) % len(ids)
    last = true.last_taken or datetime.date(2000, 1, 1)
    yield "title", replace(true, title=f"{titles[other]} II")
    yield "item", replace(true, item_id=str(ids[other]))
    yield "item", replace(true, item_id="no such item")
    yield "rank", replace(true, rank=true.rank + 1)
    yield "horizon", replace(true, horizon="century")
    yield "count", replace(true, times_taken=true.times_taken + 1)
    yield "date", replace(true, last_taken=last + datetime.timedelta(1))
    yield "score", replace(true, score=true.score + 0.01)


def _part_lies(true: ItemExplanation) -> Iterator[tuple[str, ItemExplanation]]:
    for name, parts in _moved(true.scorer_parts, 0.01):
        yield "score part", replace(true, scorer_parts=parts)
        yield "score part", replace(true, scorer_parts=parts, score=true.score + 0.01)
        renamed = {key if key != name else "magic": part for key, part in parts.items()}
        yield "score part", replace(true, scorer_parts=renamed)
    for name, parts in _moved(true.category_parts, 0.01):
        yield "score part", replace(true, category_parts=parts, score=true.score + 0.01)
        flipped = {**true.category_parts, name: -true.category_parts[name]}
        yield "direction", replace(true, category_parts=flipped)
    for _, shares in _moved(true.forecast_shares, A_LITTLE):
        yield "number", replace(true, forecast_shares=shares)
    for name, shares in _moved(true.past_shares, A_LITTLE):
        yield "number", replace(true, past_shares=shares)
        counts = {**true.category_events, name: true.category_events[name] + 1}
        yield "count", replace(true, category_events=counts)
        renamed = {key if key != name else "Magic": share for key, share in shares.items()}
        yield "category", replace(true, past_shares=renamed)


def _edit_lies(true: ItemExplanation) -> Iterator[tuple[str, ItemExplanation]]:
    """Pass an edit off as the forecast, keep it back, make it up, or say another one."""
    yield "edit", replace(true, edited_shares={}, edit_factors={})
    yield "edit", replace(true, edited_shares=true.forecast_shares)
    if true.edited_shares:
        yield "edit", replace(true, forecast_shares=true.edited_shares)
    factors_now = {**dict.fromkeys(true.forecast_shares, 1.0), **true.edit_factors}
    for name, factors in _moved(factors_now, 1.0):
        yield "edit", replace(true, edit_factors={name: factors[name]})
    for by in (A_LITTLE, -A_LITTLE):
        for _, shares in _moved(true.edited_shares, by):
            yield "edit", replace(true, edited_shares=shares)


def _event_lies(true: ItemExplanation, history: History) -> Iterator[tuple[str, ItemExplanation]]:
    item = history.catalog.item_index(true.item_id)
    categories = [c for c, name in enumerate(history.catalog.categories)
                  if true.category_events.get(name)]  # fmt: skip
    if true.evidence and categories:
        for name, event in _no_evidence(categories[0], history).items():
            if history.log.item_idx[event] != item or "category" not in name:
                found = cite_events([event], history)
                yield name, replace(true, evidence=(*found, *true.evidence[1:]))
                yield name, replace(true, evidence=(*true.evidence, *found))
    yield "evidence: none", replace(true, evidence=())
    yield "evidence: twice", replace(true, evidence=(*true.evidence, *true.evidence[:1]))
    yield "evidence: not the latest", replace(true, evidence=true.evidence[1:])
    for name, events in _distorted(true.evidence, history):
        yield name, replace(true, evidence=events)


def _told_lies(
    true: ItemExplanation, history: History, forecast: Forecast
) -> Iterator[tuple[str, ItemExplanation]]:
    names = history.catalog.categories

    def instead(place: int, lie: StatementText) -> ItemExplanation:
        kept = true.statements
        return replace(true, statements=(*kept[:place], lie, *kept[place + 1 :]))

    for place, one in enumerate(true.statements):
        ids = tuple(event.event_id for event in one.evidence)
        statement = Statement(one.kind, names.index(one.category), one.change, ids)
        for name, lie in statement_lies(statement, history, forecast):
            if lie.category < len(names):
                yield name, instead(place, render_statement(lie, history, forecast))
        yield "category", instead(place, replace(one, category="Magic"))
        for text in _renumbered(one.text):
            yield "number", instead(place, replace(one, text=text))
        for name, events in _distorted(one.evidence, history):
            yield name, instead(place, replace(one, evidence=events))


def _text_lies(true: ItemExplanation) -> Iterator[tuple[str, ItemExplanation]]:
    for text in _renumbered(true.text):
        yield "number", replace(true, model_text=text)
    for word, opposite in (("lifts", "lowers"), ("lowers", "lifts"), ("before", "never")):
        if f" {word} " in true.text:
            yield (
                "direction",
                replace(true, model_text=true.text.replace(f" {word} ", f" {opposite} ")),
            )
    yield "text", replace(true, model_text=f"{true.text} Everybody loves it.")
    yield "text", replace(true, model_text=f"{true.text} {true.text}")
    yield "refusal", replace(true, model_text=true.text, rejection="nothing is said")


def _distorted(
    events: tuple[Evidence, ...], history: History
) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
    """Events of which one has another title, day, item or place in the log."""
    ids = history.catalog.item_ids
    for place, event in enumerate(events):
        other = str(ids[(history.catalog.item_index(event.item_id) + 1) % len(ids)])
        for name, lie in (
            ("title", replace(event, title=f"{event.title} II")),
            ("date", replace(event, date=event.date - datetime.timedelta(1000))),
            ("evidence: another item", replace(event, item_id=other)),
            ("evidence: another place", replace(event, event_id=len(history.log))),
        ):
            yield name, (*events[:place], lie, *events[place + 1 :])


def _moved(parts: Mapping[str, float], by: float) -> Iterator[tuple[str, dict[str, float]]]:
    for name in parts:
        yield name, {**parts, name: parts[name] + by}


def _renumbered(text: str) -> Iterator[str]:
    """Give the text with each of its numbers changed, wherever it stands."""
    for found in re.finditer(r"\d+", text):
        yield text[: found.start()] + str(int(found[0]) + 1) + text[found.end() :]
