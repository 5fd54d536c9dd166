"""Claims that no probability stands behind: what version 0.1 said, and how often it came true."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from benchmarks.finetuning.parse_rate import wilson_interval
from benchmarks.harness.formatting import Row
from benchmarks.harness.results import mean_row, value_row
from llmrec.data.periods import Window
from llmrec.explain.facts import (
    MAX_CLAIMS,
    ClaimFacts,
    observed_forecast,
    statements_that_came_true,
)
from llmrec.forecast import STATEMENT_KINDS, Forecast, StatementKind

TEMPLATE = "template of 0.1"
KINDS_OF_TEMPLATE: tuple[StatementKind, ...] = ("rising", "fading", "steady", "new", "returning")
Claim = tuple[StatementKind, int]  # kind and category


def template_claims(windows: Sequence[Window], forecasts: Sequence[Forecast]) -> list[list[Claim]]:
    """Give what version 0.1 would say of each person's forecast."""
    plain = [replace(forecast, statement_model=None) for forecast in forecasts]
    pairs = zip(windows, plain, strict=True)
    return [choose_as_before(ClaimFacts.compare(window.history, one)) for window, one in pairs]


def choose_as_before(facts: ClaimFacts, limit: int = MAX_CLAIMS) -> list[Claim]:
    """Choose claims as version 0.1 did: one a category, the kinds in turn, up to the limit.

    Each kind gives its claim of largest change beside its noise in turn, rising and fading first;
    steady ones by their share. ``facts`` are without probabilities.
    """
    weight = np.abs(facts.change) / facts.noise

    def order(claim: Claim) -> tuple[float, float, int]:
        kind, category = claim
        size = 0.0 if kind == "steady" else float(weight[category])
        return -size, -float(facts.expected[category]), -KINDS_OF_TEMPLATE.index(kind)

    supported = [
        (kind, int(category))
        for kind in KINDS_OF_TEMPLATE
        for category in np.flatnonzero(facts.supported(kind))
    ]
    turns: dict[Claim, tuple[int, bool]] = {}
    n_of_kind: Counter[StatementKind] = Counter()
    for kind, category in sorted(supported, key=order):
        turns[kind, category] = (n_of_kind[kind], kind not in ("rising", "fading"))
        n_of_kind[kind] += 1
    chosen: dict[int, StatementKind] = {}
    for kind, category in sorted(turns, key=turns.__getitem__):
        if len(chosen) < limit:
            chosen.setdefault(category, kind)
    return sorted(((kind, category) for category, kind in chosen.items()), key=order)


def claims_that_came_true(window: Window, claims: Sequence[Claim]) -> list[bool]:
    """Whether each claim came true, as `realized_statements` judges one with a probability.

    "Steady" has the conditions of version 0.1, under the observed shares. Of a period without
    events "nothing of" is true and nothing else.
    """
    true = dict(statements_that_came_true(window))
    true["steady"] = np.zeros(len(true["again"]), dtype=np.bool_)
    if window.target.category_counts.any():
        true["steady"] = ClaimFacts.of(window.history, observed_forecast(window)).supported(
            "steady"
        )
    return [bool(true[kind][category]) for kind, category in claims]


def claim_rows(
    keys: Row, name: str, windows: Sequence[Window], claims: Sequence[Sequence[Claim]]
) -> Iterator[Row]:
    """Give the rows of how many claims a person gets, and the share that came true, by kind."""
    n_claims = np.array([float(len(one)) for one in claims])
    yield mean_row(keys | {"model": name}, "statements", n_claims)
    outcomes: list[tuple[str, bool]] = []
    for window, own in zip(windows, claims, strict=True):
        true = claims_that_came_true(window, own)
        outcomes += zip((kind for kind, _ in own), true, strict=True)
    for kind in ("", *dict.fromkeys((*STATEMENT_KINDS, *KINDS_OF_TEMPLATE))):
        chosen = [true for one, true in outcomes if kind in ("", one)]
        if chosen:
            of_kind = keys | {"model": f"{name}: {kind}" if kind else name}
            yield share_row(of_kind, "came_true", chosen)


def share_row(keys: Row, metric: str, outcomes: Sequence[bool]) -> Row:
    """Make the row of a share of claims, with its 95 % interval."""
    hits, n = sum(outcomes), len(outcomes)
    low, high = wilson_interval(hits, n)
    return value_row(keys, metric, hits / n, n) | {"low": low, "high": high}
