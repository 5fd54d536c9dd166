"""Statements about the next period as sentences."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.data.periods import ABSENCE_PERIODS, History
from llmrec.explain.evidence import distinct_evidence, join_evidence
from llmrec.explain.facts import ClaimFacts, format_percent, seeded_rng
from llmrec.forecast import Forecast, Statement, StatementKind
from llmrec.forecasters.probability_words import describe_probability

MAX_TITLES_IN_SENTENCE = 2
_CHANGE_TEMPLATES = (
    ": {ahead} forecast against {past} so far",
    ", from {past} so far to a forecast {ahead}",
    ": {past} so far, {ahead} forecast",
)
# A sentence is an opening, its numbers and its evidence; any three of a kind can be combined.
# These are of statements without a probability; version 0.1 had no others.
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
# And these of statements with one, which stands between opening and numbers.
PROBABILITY_TEMPLATES: dict[StatementKind, tuple[Sequence[str], Sequence[str]]] = {
    "again": (
        ("{name} again", "{name} once more", "Once more {name}"),
        (", {verb} in {periods}", ", {verb} in {periods} so far"),
    ),
    "fading": (
        (
            "A smaller share for {name}",
            "{name} with a smaller share than so far",
            "A smaller part for {name}",
        ),
        (", {ahead} forecast against {past} so far", ", {past} so far and {ahead} forecast"),
    ),
    "nothing of": (
        ("Nothing of {name}", "No {name} at all", "{name} not at all"),
        (", {verb} in {periods}", ", {verb} in {periods} so far"),
    ),
    "rising": (
        (
            "A larger share for {name}",
            "{name} with a larger share than so far",
            "A larger part for {name}",
        ),
        (", {ahead} forecast against {past} so far", ", {past} so far and {ahead} forecast"),
    ),
    "new": (
        ("{name} for the first time", "A first time for {name}", "Something new, {name}"),
        (", never {verb} so far",),
    ),
    "returning": (
        ("{name} again after a pause", "A return to {name}", "{name} back after a pause"),
        (", none in the last {absent}",),
    ),
}
EVIDENCE_TEMPLATES = (
    " (latest: {titles})",
    " (most recently {titles})",
    " (last {verb}: {titles})",
)


def statement_sentence(
    statement: Statement, history: History, forecast: Forecast, phrase: str = ""
) -> str:
    """Write a statement as one plain-text sentence with its numbers and its newest evidence.

    It begins with the category and the ``phrase``, if there is one; the rest is sampled by user,
    category and kind.
    """
    return make_sentence(statement, history, ClaimFacts.of(history, forecast), phrase)


def make_sentence(
    statement: Statement, history: History, facts: ClaimFacts, phrase: str = ""
) -> str:
    """Write a statement as `statement_sentence` does, of facts that are known."""
    kind, category, probability = statement.kind, statement.category, statement.probability
    name = history.catalog.categories[category]
    rng = seeded_rng(history.user_id, name, kind)
    of_kind, likely = SENTENCE_TEMPLATES.get(kind), ""
    if probability is not None and statement.usual_rate is not None:
        of_kind = PROBABILITY_TEMPLATES.get(kind, of_kind)
        likely = f": {describe_probability(probability, statement.usual_rate)}"
    openings, numbers = of_kind or PROBABILITY_TEMPLATES[kind]
    opening, number, latest = (_sample(one, rng) for one in (openings, numbers, EVIDENCE_TEMPLATES))
    cited = distinct_evidence(statement.event_ids, history)[:MAX_TITLES_IN_SENTENCE]
    opening = "{name} {phrase}" if phrase else opening
    return f"{opening}{{likely}}{number}{latest if cited else ''}.".format(
        name=name,
        phrase=phrase,
        likely=likely,
        verb=history.verb,
        ahead=format_percent(facts.expected[category]),
        past=format_percent(facts.past[category]),
        periods=f"{facts.n_periods_with[category]} of {facts.n_periods} active periods",
        absent=f"{ABSENCE_PERIODS} active periods",
        titles=join_evidence(cited) if cited else "",
    )


def _sample(texts: Sequence[str], rng: np.random.Generator) -> str:
    return texts[int(rng.integers(len(texts)))]
