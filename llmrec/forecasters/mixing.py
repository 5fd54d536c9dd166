"""Mixing what learned models say: shares chosen on validation windows, and what is held out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from llmrec.contracts import FloatArray, Forecaster
from llmrec.data.periods import History, Window
from llmrec.errors import DataError

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """What a forecaster said of validation windows before it was fitted on them too."""

    rows: dict[tuple[int, int], int]  # (user, first event of the target) to the row of weights
    weights: FloatArray  # (n, n_categories)

    @classmethod
    def of(cls, windows: Sequence[Window], weights: FloatArray) -> HeldOut:
        """Keep (n_windows, n_categories) weights."""
        return cls({_key(window): row for row, window in enumerate(windows)}, weights)

    def on(self, windows: Sequence[Window]) -> FloatArray:
        """Give the weights of some of the windows; DataError for one without."""
        missing = [window for window in windows if _key(window) not in self.rows]
        if missing:
            raise DataError(
                f"{len(missing)} windows have no held-out weights, such as that of user "
                f"{missing[0].history.user_id!r}: fit the forecaster with them as its validation"
            )
        return self.weights[[self.rows[_key(window)] for window in windows]]


def weights_on(forecaster: Any, validation: Sequence[Window]) -> FloatArray:
    """(n_validation, n_categories) weights that may be fitted on: held out where those were kept.

    A forecaster without any is asked. Those of the family that keep none have tuned two or three
    numbers on the validation windows.
    """
    fitted = getattr(forecaster, "fitted", None)
    kept: HeldOut | None = getattr(forecaster, "held_out", None)
    seen = fitted is not None and any(map(fitted.saw, validation))
    if seen and kept is not None:
        return kept.on(validation)
    if seen and hasattr(forecaster, "held_out"):
        raise DataError(
            f"{type(forecaster).__name__} was fitted on these windows and kept no held-out "
            "weights (a loaded checkpoint has none): fit it with them as its validation"
        )
    return weights_of(forecaster, [window.history for window in validation])


def weights_of(forecaster: Forecaster, histories: Sequence[History]) -> FloatArray:
    """(n_histories, n_categories) weights of any forecaster's forecasts."""
    return np.stack([forecast.category_weights for forecast in forecaster.forecast(histories)])


def _key(window: Window) -> tuple[int, int]:
    return window.history.user_idx, window.target.start


def shares_of(counts: FloatArray) -> FloatArray:
    """Divide each row of (n, n_categories) counts by its sum; rows of 0 stay 0."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(totals > 0, totals, 1.0))


def mean_loss(category_weights: FloatArray, targets: FloatArray) -> float:
    """Mean log-loss per event of positive (n, n_categories) weights, for choosing among fits.

    A target (of counts) without events adds 0; `llmrec.evaluation.metrics.log_loss` is the judge's,
    user by user.
    """
    return float(-(shares_of(targets) * np.log(category_weights)).sum(axis=1).mean())


def mixed(counted: FloatArray, learned: FloatArray, share: float) -> FloatArray:
    """(1 - share) * counted + share * learned by row; counted alone where learned is all 0."""
    believed = share * learned.sum(axis=1, keepdims=True)
    return np.asarray((1 - believed) * counted + share * learned)


def fit_share(counted: FloatArray, learned: FloatArray, targets: FloatArray) -> tuple[float, float]:
    """Give the share of least log-loss, and this loss; all arrays are (n, n_categories)."""
    losses = {share: mean_loss(mixed(counted, learned, share), targets) for share in SHARES}
    best = min(losses, key=lambda share: losses[share])
    return best, losses[best]
