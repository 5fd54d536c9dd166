"""Calibration of the probabilities of one kind of statement."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from llmrec.data.stored import Stored
from llmrec.forecast import StatementKind
from llmrec.forecasters.linear_predictor import LinearPredictor, fit_logistic
from llmrec.forecasters.statement_outcomes import SHARE_KINDS
from llmrec.forecasters.stored_values import read_number, refuse_broken
from llmrec.types import BoolArray, FloatArray

MIN_CASES, MIN_OF_EACH = 200, 20  # of statements, and of those that came true and that did not
MAX_CASES = 200_000
MIN_RAW, MIN_RAW_OF_BETA = 1e-6, 1e-4
BETA_KINDS: tuple[StatementKind, ...] = (*SHARE_KINDS, "returning")


@dataclass(frozen=True, eq=False)
class ProbabilityCalibrator:
    """Turns a kind's raw probabilities into ones that come true as often as they say.

    Platt scaling (Platt 1999), the logit of a linear function of the raw one's logit; of
    `BETA_KINDS` beta calibration (Kull, Silva Filho and Flach 2017), a linear function of log p and
    -log(1 - p). No larger raw probability gets a smaller one, and none further out than the
    smallest and largest of the fit is taken further.

    Attributes
    ----------
    kind
        Which statements it is of.
    predictor
        Of the logit; not used if not `is_fitted`.
    usual_rate
        Share of all statements on validation that came true; 0 without any.
    n_cases, n_true
        Those that it is fitted on, and those of them that came true.
    """

    kind: StatementKind
    predictor: LinearPredictor
    usual_rate: float
    n_cases: int
    n_true: int

    @classmethod
    def fit(
        cls,
        kind: StatementKind,
        raw: FloatArray,
        outcomes: BoolArray,
        has_events: BoolArray,
        seed: int = 0,
    ) -> ProbabilityCalibrator:
        """Fit on (n,) raw probabilities and what came true; of more than `MAX_CASES` on some.

        ``has_events`` says whether anything was taken: that a share rises or fades is calibrated
        on these cases alone.
        """
        rate = float(outcomes.mean()) if len(outcomes) else 0.0
        cases = np.flatnonzero(has_events) if kind in SHARE_KINDS else np.arange(len(raw))
        n, n_true = len(cases), int(outcomes[cases].sum())
        if len(cases) > MAX_CASES:
            cases = np.random.default_rng(seed).choice(cases, MAX_CASES, replace=False)
        features = np.stack(_features(kind, raw[cases]), axis=1)
        predictor = fit_logistic(features, outcomes[cases].astype(np.bool_), rising=True)
        return cls(kind, predictor, rate, n, n_true)

    @property
    def is_fitted(self) -> bool:
        """Whether there were cases enough to calibrate on."""
        least = min(self.n_true, self.n_cases - self.n_true)
        return self.n_cases >= MIN_CASES and least >= MIN_OF_EACH

    def apply(self, raw: FloatArray) -> FloatArray:
        """Calibrate probabilities of any shape; NaN where they are, and all if not `is_fitted`.

        Of "rising" and "fading" both are given that there is an event.
        """
        if not self.is_fitted:
            return np.full(raw.shape, np.nan)
        return np.asarray(special.expit(self.predictor.predict(_features(self.kind, raw))))

    def stored(self) -> Stored:
        """Give the numbers."""
        values = {"usual_rate": self.usual_rate, "n_cases": self.n_cases, "n_true": self.n_true}
        return Stored("ProbabilityCalibrator", values, self.predictor.arrays("predictor"))

    @classmethod
    def from_stored(cls, stored: Stored, kind: StatementKind) -> ProbabilityCalibrator:
        """Make it again; ModelLoadError if a value is missing or cannot be."""
        with refuse_broken(stored, "ProbabilityCalibrator"):
            n_features = len(_features(kind, np.empty(0)))
            predictor = LinearPredictor.from_arrays("predictor", stored.arrays, n_features)
            rate = read_number(stored, "usual_rate", 0.0, 1.0)
            n_cases, n_true = (int(read_number(stored, n)) for n in ("n_cases", "n_true"))
            return cls(kind, predictor, rate, n_cases, n_true)


def _features(kind: StatementKind, raw: FloatArray) -> list[FloatArray]:
    if kind in BETA_KINDS:
        p = np.clip(raw, MIN_RAW_OF_BETA, 1 - MIN_RAW_OF_BETA)
        return [np.log(p), -np.log1p(-p)]
    return [special.logit(np.clip(raw, MIN_RAW, 1 - MIN_RAW))]
