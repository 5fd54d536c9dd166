"""Corruptions of true statements and explanations, which a checker must catch, by kind."""

from __future__ import annotations

import datetime
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace
from functools import partial
from itertools import islice
from typing import Any

import numpy as np

from llmrec.data.periods import History
from llmrec.explain.causes import Causes
from llmrec.explain.counterfactual import RemovalCounterfactual, WhyNot
from llmrec.explain.evidence import Evidence, cite_events
from llmrec.explain.facts import history_shares
from llmrec.explain.item import ItemExplanation, StatementText, render_statement
from llmrec.explain.statements import TOLERANCE
from llmrec.forecast import STATEMENT_KINDS, Forecast, Statement, StatementKind
from llmrec.forecasters.probability_words import WORDS

# Kinds that cannot be true beside a kind, by definition, where statements have no probability;
# fading and returning can, so can steady and returning. With one any other kind is a lie.
EXCLUDED_KINDS: dict[StatementKind, tuple[StatementKind, ...]] = {
    "rising": ("fading", "steady", "new", "returning"),
    "fading": ("rising", "steady", "new"),
    "steady": ("rising", "fading", "new"),
    "new": ("rising", "fading", "steady", "returning"),
    "returning": ("rising", "new"),
}
MAX_CATEGORIES = 4
SMALL_SHARE = 0.001  # no text shows it
MAX_NUMBERS = 12  # of a description that are changed


def statement_corruptions(
    true: Statement, history: History, forecast: Forecast
) -> Iterator[tuple[str, Statement]]:
    """Corrupt a true statement in every way, one at a time."""
    change = forecast.category_weights - history_shares(history)
    kinds = EXCLUDED_KINDS.get(true.kind, ())
    if true.probability is not None:
        kinds = tuple(kind for kind in STATEMENT_KINDS if kind != true.kind)
    for kind in kinds:
        yield "direction", replace(true, kind=kind)
    for wrong in _wrong_probabilities(true.probability):
        yield "probability", replace(true, probability=wrong)
    for wrong in _wrong_probabilities(true.usual_rate):
        yield "usual rate", replace(true, usual_rate=wrong)
    others = np.flatnonzero(np.abs(change - true.change) > TOLERANCE)
    for category in [*others[:MAX_CATEGORIES].tolist(), len(change)]:
        yield "category", replace(true, category=category)
    for wrong in (true.change + SMALL_SHARE, true.change - SMALL_SHARE, float("nan")):
        yield "number", replace(true, change=wrong)
    if abs(true.change) > TOLERANCE:
        yield "direction", replace(true, change=-true.change)
    for name, event in _wrong_evidence(true.category, history).items():
        yield name, replace(true, event_ids=(event, *true.event_ids[1:]))
        yield name, replace(true, event_ids=(*true.event_ids, event))
    if true.event_ids:
        yield "evidence: twice", replace(true, event_ids=(*true.event_ids, true.event_ids[-1]))
        yield "evidence: none", replace(true, event_ids=())
    if len(true.event_ids) > 1:
        yield "evidence: not the latest", replace(true, event_ids=true.event_ids[1:])


def item_corruptions(
    true: ItemExplanation, history: History, forecast: Forecast
) -> Iterator[tuple[str, ItemExplanation]]:
    """Corrupt a true explanation in every way, one at a time."""
    for name, corrupted in (
        *_field_corruptions(true, history),
        *_part_corruptions(true),
        *_event_corruptions(true, history),
        *_statement_text_corruptions(true, history, forecast),
        *_edit_corruptions(true),
        *_cause_corruptions(true, history),
        *_new_item_corruptions(true, history),
        *_text_corruptions(true),
    ):
        if corrupted != true:
            yield name, corrupted


def description_corruptions(true: Forecast) -> Iterator[tuple[str, Forecast]]:
    """Change a number of a description, leave a sentence out, or add one."""
    for text in islice(_with_other_number(true.description), MAX_NUMBERS):
        yield "number", replace(true, description=text)
    for text in _with_other_word(true.description):
        yield "word of a probability", replace(true, description=text)
    yield "text", replace(true, description=f"{true.description} Everybody loves it.")
    if true.statements:
        yield "text", replace(true, statements=true.statements[1:])


def change_corruptions(
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


def _wrong_probabilities(true: float | None) -> tuple[float, ...]:
    return () if true is None else (true + SMALL_SHARE, true - SMALL_SHARE, true / 2, float("nan"))


def _wrong_evidence(category: int, history: History) -> dict[str, int]:
    """Log positions of events that are no evidence of a category: one of each kind there is."""
    log, shares = history.log, history.catalog.category_shares
    first, last = (int(end) for end in log.user_offsets[history.user_idx : history.user_idx + 2])
    in_category = shares[:, [category]].toarray()[:, 0] > 0
    events = np.arange(len(log))
    own = (events >= first) & (events < history.event_ids.stop)
    supporting = in_category[log.item_idx]
    masks = {
        "evidence: another category": own & ~supporting,
        "evidence: another person": supporting & ((events < first) | (events >= last)),
        "evidence: after the cutoff": supporting
        & (events >= history.event_ids.stop)
        & (events < last),
    }
    return {name: int(np.flatnonzero(mask)[-1]) for name, mask in masks.items() if mask.any()}


def _field_corruptions(
    true: ItemExplanation, history: History
) -> Iterator[tuple[str, ItemExplanation]]:
    ids, titles = history.catalog.item_ids, history.catalog.titles
    other = (history.catalog.item_index(true.item_id) + 1) % len(ids)
    last = true.last_taken or datetime.date(2000, 1, 1)
    yield "title", replace(true, title=f"{titles[other]} II")
    yield "item", replace(true, item_id=str(ids[other]))
    yield "item", replace(true, item_id="no such item")
    yield "rank", replace(true, rank=true.rank + 1)
    yield "horizon", replace(true, horizon="century")
    yield "verb", replace(true, verb="stolen")
    yield "count", replace(true, times_taken=true.times_taken + 1)
    yield "date", replace(true, last_taken=last + datetime.timedelta(1))
    yield "score", replace(true, score=true.score + 0.01)


def _part_corruptions(true: ItemExplanation) -> Iterator[tuple[str, ItemExplanation]]:
    for name, parts in _shifted(true.scorer_parts, 0.01):
        yield "score part", replace(true, scorer_parts=parts)
        yield "score part", replace(true, scorer_parts=parts, score=true.score + 0.01)
        renamed = {key if key != name else "magic": part for key, part in parts.items()}
        yield "score part", replace(true, scorer_parts=renamed)
    for name, parts in _shifted(true.category_parts, 0.01):
        yield "score part", replace(true, category_parts=parts, score=true.score + 0.01)
        flipped = {**true.category_parts, name: -true.category_parts[name]}
        yield "direction", replace(true, category_parts=flipped)
    for _, shares in _shifted(true.forecast_shares, SMALL_SHARE):
        yield "number", replace(true, forecast_shares=shares)
    for name, shares in _shifted(true.past_shares, SMALL_SHARE):
        yield "number", replace(true, past_shares=shares)
        counts = {**true.category_events, name: true.category_events[name] + 1}
        yield "count", replace(true, category_events=counts)
        renamed = {key if key != name else "Magic": share for key, share in shares.items()}
        yield "category", replace(true, past_shares=renamed)


def _with_causes(true: ItemExplanation, causes: Causes, **changed: Any) -> ItemExplanation:
    return replace(true, causes=replace(causes, **changed))


def _events_of_others(cited: Collection[str], history: History) -> list[int]:
    """List the events of items that are not cited by their ids."""
    return [event for event in history.event_ids if _item_id(event, history) not in cited]


def _cause_corruptions(
    true: ItemExplanation, history: History
) -> Iterator[tuple[str, ItemExplanation]]:
    """Name another past item, another rank without it, a wrong order, or nothing."""
    causes = true.causes
    if causes is None:
        return
    with_causes = partial(_with_causes, true, causes)
    yield "cause: popularity", with_causes(n_recent=causes.n_recent + 1)
    yield "cause: rank", with_causes(rank=causes.rank + 1)
    yield "cause: tilt", with_causes(tilt="forecast" if causes.tilt == "edits" else "edits")
    for by in (-1, 1):
        if causes.rank_without is not None:
            yield "cause: rank without", with_causes(rank_without=causes.rank_without + by)
        if causes.rank_without_tilt is not None:
            moved = causes.rank_without_tilt + by
            yield "cause: rank without the forecast", with_causes(rank_without_tilt=moved)
    named = causes.named
    if len(named) > 1:
        yield "cause: order", with_causes(named=named[::-1])
    others = _events_of_others({one.latest.item_id for one in named}, history)
    for place, one in enumerate(named):
        rest = (*named[:place], *named[place + 1 :])
        yield "cause: times", with_causes(named=(replace(one, times=one.times + 1), *rest))
        yield "cause: share", with_causes(named=(replace(one, share=one.share / 2), *rest))
        for event in others[-1:]:
            (other,) = cite_events([event], history)
            yield "cause: another item", with_causes(named=(replace(one, latest=other), *rest))
        for name, events in _corrupted_events((one.latest,), history):
            yield name, with_causes(named=(replace(one, latest=events[0]), *rest))


def _new_item_corruptions(
    true: ItemExplanation, history: History
) -> Iterator[tuple[str, ItemExplanation]]:
    """Call what is new taken, or the reverse; name other past items, or close in something else."""
    causes = true.causes
    if causes is None:
        return
    with_causes = partial(_with_causes, true, causes)
    yield "new: taken", with_causes(is_new=not causes.is_new)
    yield "new: shelf", replace(true, shelf="all" if true.shelf == "new" else "new")
    yield "new: block", with_causes(close_block=f"{causes.close_block}x")
    close = causes.close_titles
    yield "new: close titles", with_causes(close_titles=close[1:])
    yield "new: close titles", with_causes(close_titles=close[::-1])
    others = _events_of_others({one.item_id for one in close}, history)
    for other in cite_events(others[-1:], history):
        yield "new: close titles", with_causes(close_titles=(*close, other))
        yield "new: close titles", with_causes(close_titles=(*close[:-1], other))
    for name, events in _corrupted_events(close, history):
        yield name, with_causes(close_titles=events)


def _item_id(event: int, history: History) -> str:
    return str(history.catalog.item_ids[history.log.item_idx[event]])


def _edit_corruptions(true: ItemExplanation) -> Iterator[tuple[str, ItemExplanation]]:
    """Show an edited share as the forecast, leave an edit out, make one up, or change one."""
    yield "edit", replace(true, edited_shares={}, edit_factors={})
    yield "edit", replace(true, edited_shares=true.forecast_shares)
    if true.edited_shares:
        yield "edit", replace(true, forecast_shares=true.edited_shares)
    current = {**dict.fromkeys(true.forecast_shares, 1.0), **true.edit_factors}
    for name, factors in _shifted(current, 1.0):
        yield "edit", replace(true, edit_factors={name: factors[name]})
    for by in (SMALL_SHARE, -SMALL_SHARE):
        for _, shares in _shifted(true.edited_shares, by):
            yield "edit", replace(true, edited_shares=shares)


def _event_corruptions(
    true: ItemExplanation, history: History
) -> Iterator[tuple[str, ItemExplanation]]:
    item = history.catalog.item_index(true.item_id)
    categories = [c for c, name in enumerate(history.catalog.categories)
                  if true.category_events.get(name)]  # fmt: skip
    if true.evidence and categories:
        for name, event in _wrong_evidence(categories[0], history).items():
            if history.log.item_idx[event] != item or "category" not in name:
                cited = cite_events([event], history)
                yield name, replace(true, evidence=(*cited, *true.evidence[1:]))
                yield name, replace(true, evidence=(*true.evidence, *cited))
    yield "evidence: none", replace(true, evidence=())
    yield "evidence: twice", replace(true, evidence=(*true.evidence, *true.evidence[:1]))
    yield "evidence: not the latest", replace(true, evidence=true.evidence[1:])
    for name, events in _corrupted_events(true.evidence, history):
        yield name, replace(true, evidence=events)


def _statement_text_corruptions(
    true: ItemExplanation, history: History, forecast: Forecast
) -> Iterator[tuple[str, ItemExplanation]]:
    names = history.catalog.categories

    def replace_at(place: int, text: StatementText) -> ItemExplanation:
        others = true.statements
        return replace(true, statements=(*others[:place], text, *others[place + 1 :]))

    for place, one in enumerate(true.statements):
        ids = tuple(event.event_id for event in one.evidence)
        chance = (one.probability, one.usual_rate)
        statement = Statement(one.kind, names.index(one.category), one.change, ids, *chance)
        for name, corrupted in statement_corruptions(statement, history, forecast):
            if corrupted.category < len(names):
                yield name, replace_at(place, render_statement(corrupted, history, forecast))
        yield "category", replace_at(place, replace(one, category="Magic"))
        for text in _with_other_number(one.text):
            yield "number", replace_at(place, replace(one, text=text))
        for text in _with_other_word(one.text):
            yield "word of a probability", replace_at(place, replace(one, text=text))
        for name, events in _corrupted_events(one.evidence, history):
            yield name, replace_at(place, replace(one, evidence=events))


def _text_corruptions(true: ItemExplanation) -> Iterator[tuple[str, ItemExplanation]]:
    for text in _with_other_number(true.text):
        yield "number", replace(true, model_text=text)
    for word, opposite in (("lifts", "lowers"), ("lowers", "lifts"), ("before", "never")):
        if f" {word} " in true.text:
            yield (
                "direction",
                replace(true, model_text=true.text.replace(f" {word} ", f" {opposite} ")),
            )
    yield "text", replace(true, model_text=f"{true.text} Everybody loves it.")
    yield "text", replace(true, model_text=f"{true.text} {true.text}")
    yield "rejection", replace(true, model_text=true.text, rejection="nothing is said")


def _corrupted_events(
    events: tuple[Evidence, ...], history: History
) -> Iterator[tuple[str, tuple[Evidence, ...]]]:
    """Give the events, one of them with another title, day, item or place in the log."""
    ids = history.catalog.item_ids
    for place, event in enumerate(events):
        other = str(ids[(history.catalog.item_index(event.item_id) + 1) % len(ids)])
        for name, corrupted in (
            ("title", replace(event, title=f"{event.title} II")),
            ("date", replace(event, date=event.date - datetime.timedelta(1000))),
            ("evidence: another item", replace(event, item_id=other)),
            ("evidence: another place", replace(event, event_id=len(history.log))),
        ):
            yield name, (*events[:place], corrupted, *events[place + 1 :])


def _shifted(parts: Mapping[str, float], by: float) -> Iterator[tuple[str, dict[str, float]]]:
    for name in parts:
        yield name, {**parts, name: parts[name] + by}


def _with_other_number(text: str) -> Iterator[str]:
    """Give the text with one of its numbers changed, for each of them."""
    for number in re.finditer(r"\d+", text):
        yield text[: number.start()] + str(int(number[0]) + 1) + text[number.end() :]


def _with_other_word(text: str) -> Iterator[str]:
    """Give the text with another word for each of its probabilities."""
    words = [*(word for _, word in WORDS), "more likely than usual"]
    for word in words:
        for place in re.finditer(f": {word} \\(", text):
            for other in words:
                if other != word:
                    yield f"{text[: place.start()]}: {other} ({text[place.end() :]}"
