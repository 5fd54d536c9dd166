"""Reference forecasts: from half of the target, and the exact one of a synthetic world."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from llmrec.data.catalog import category_sums
from llmrec.data.periods import Window
from llmrec.metrics import log_loss
from llmrec.types import FloatArray

INFORMED_PRIORS = tuple(float(value) for value in np.geomspace(5, 5_000, 25))


def split_targets(windows: Sequence[Window], seed: int = 0) -> tuple[FloatArray, FloatArray]:
    """Split each target in two at random.

    Returns
    -------
    shown, hidden
        (n_windows, n_categories) counts. What a person took at one time stays together; a target of
        one time only is left out (both 0).
    """
    events, sides = [], []
    for window in windows:
        target, user = window.target, window.history.user_idx
        times, basket = np.unique(
            target.log.timestamp[target.start : target.stop], return_inverse=True
        )
        order = np.random.default_rng((seed, user)).permutation(len(times))
        side = np.where(order[basket] < len(times) // 2, 0, 1)
        events.append(target.item_idx)
        sides.append(side if len(times) > 1 else np.full(len(side), 2))
    row = np.repeat(np.arange(len(windows)), [len(part) for part in events])
    cells = 3 * row + np.concatenate(sides)
    sums = category_sums(
        windows[0].target.catalog, cells, np.concatenate(events), 3 * len(windows)
    ).reshape(len(windows), 3, -1)
    return sums[:, 0], sums[:, 1]


def informed_losses(
    category_weights: FloatArray, shown: FloatArray, hidden: FloatArray
) -> FloatArray:
    """(n,) log-loss on the hidden half of the forecast updated by the shown half.

    q' = (k q + shown) / (k + n_shown). k is the best of a grid on these very windows: the reference
    is to be as strong as it can be.
    """
    totals = shown.sum(axis=1, keepdims=True)
    tried = [
        log_loss((k * category_weights + shown) / (k + totals), hidden) for k in INFORMED_PRIORS
    ]
    return min(tried, key=lambda losses: float(np.nansum(losses)))
