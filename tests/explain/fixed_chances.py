"""A statement model whose probabilities are plain functions of share and past."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from llmrec.data.periods import History
from llmrec.forecast import STATEMENT_KINDS, StatementChances, StatementKind
from llmrec.forecasters.past_counts import PastCounts
from llmrec.forecasters.statement_outcomes import where_applicable
from llmrec.forecasters.statement_probabilities import LEAST
from llmrec.types import FloatArray

RATES: Mapping[StatementKind, float] = {
    "again": 0.4,
    "fading": 0.5,
    "nothing of": 0.5,
    "rising": 0.2,
    "new": 0.1,
    "returning": 0.15,
}
N_EVENTS = 6


@dataclass(frozen=True)
class FixedChances:
    """Takes the next period for six independent events; ``kinds`` are those that it knows."""

    kinds: tuple[StatementKind, ...] = STATEMENT_KINDS

    def chances(
        self, histories: Sequence[History], category_weights: FloatArray
    ) -> list[StatementChances]:
        return [
            self._of_person(history, weights)
            for history, weights in zip(histories, category_weights, strict=True)
        ]

    def _of_person(self, history: History, weights: FloatArray) -> StatementChances:
        past = PastCounts.of([history])
        taken = 1 - (1 - weights) ** N_EVENTS
        larger = np.clip(0.5 + 2 * (weights - past.shares[0]), 0.01, 0.995)
        values: dict[StatementKind, FloatArray] = {
            "again": taken,
            "fading": 1 - larger,
            "nothing of": 1 - taken,
            "rising": larger,
            "new": taken,
            "returning": taken,
        }
        applicable = where_applicable(past)
        found = {
            kind: np.where(applicable[kind][0] & (kind in self.kinds), values[kind], np.nan)
            for kind in STATEMENT_KINDS
        }
        gains = {
            kind: np.where(found[kind] >= LEAST[kind], found[kind] - RATES[kind], np.nan)
            for kind in STATEMENT_KINDS
        }
        return StatementChances(found, gains, {kind: RATES[kind] for kind in self.kinds})
