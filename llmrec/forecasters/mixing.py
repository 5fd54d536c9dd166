"""Mixing what a learned model says into counting, to a share chosen on validation windows."""

from __future__ import annotations

import numpy as np

from llmrec.contracts import FloatArray

SHARES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.98)


def shares_of(counts: FloatArray) -> FloatArray:
    """Divide each row of (n, n_categories) counts by its sum; rows of 0 stay 0."""
    totals = counts.sum(axis=1, keepdims=True)
    return np.asarray(counts / np.where(totals > 0, totals, 1.0))


def mixed(counted: FloatArray, learned: FloatArray, share: float) -> FloatArray:
    """(1 - share) * counted + share * learned by row; counted alone where learned is all 0."""
    believed = share * learned.sum(axis=1, keepdims=True)
    return np.asarray((1 - believed) * counted + share * learned)


def fit_share(counted: FloatArray, learned: FloatArray, targets: FloatArray) -> tuple[float, float]:
    """Give the share of least log-loss, and this loss; all arrays are (n, n_categories)."""
    shares = shares_of(targets)
    losses = {
        share: float(-(shares * np.log(mixed(counted, learned, share))).sum(axis=1).mean())
        for share in SHARES
    }
    best = min(losses, key=lambda share: losses[share])
    return best, losses[best]
