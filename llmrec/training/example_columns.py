"""The columns of training examples: texts, priors and targets of a timeline's windows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy.special import log_softmax

from llmrec.data.counts import row_shares, target_counts
from llmrec.data.periods import Window, split_into_ticks
from llmrec.explain.describe import target_line
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.language.codec import MAX_ITEMS_PER_TICK, Codec
from llmrec.types import FloatArray


def make_texts(
    chunk: Sequence[Window], codec: Codec, prior: DecayedDirichlet, seed: int
) -> dict[str, str]:
    """Give the columns of a timeline that hold text."""
    history = chunk[-1].history
    log_prior = np.log(prior.category_weights([window.history for window in chunk]))
    return {
        "prompt": codec.prompt(history),
        "request": codec.completion_prompt(history),
        "line": target_line(codec, chunk[-1], np.exp(log_prior[-1]), seed),
    }


def make_targets(
    chunk: Sequence[Window],
    codec: Codec,
    prior: DecayedDirichlet,
    numbers: Mapping[str, int],
    shifts: Mapping[np.datetime64, FloatArray],
) -> dict[str, Any]:
    """Give the columns of a timeline that hold a value for each of its read positions.

    ``numbers`` are those of the titles in the manifest, ``shifts`` see `population_shifts`.
    """
    log_prior = np.log(prior.category_weights([window.history for window in chunk]))
    shift = [shifts.get(window.history.cutoff, np.zeros(1)) for window in chunk]
    return {
        "back": _ticks_after(chunk),
        "taken": [[numbers[t] for t in target_titles(w, codec) if t in numbers] for w in chunk],
        "log_prior": log_softmax(log_prior + np.stack(shift), axis=1),
        "shares": row_shares(target_counts(chunk)),
    }


def target_titles(window: Window, codec: Codec) -> list[str]:
    """Give the titles of a target's newest items, as they stand in prompts."""
    catalog = window.history.catalog
    return [codec.title(catalog, item) for item in window.target.item_idx[-MAX_ITEMS_PER_TICK:]]


def _ticks_after(chunk: Sequence[Window]) -> list[int]:
    """How many ticks of the newest history come after each window's history."""
    sizes = [len(split_into_ticks(window.history)[0]) for window in chunk]
    return [sizes[-1] - size for size in sizes]


def population_shifts(
    windows: Sequence[Window], prior: DecayedDirichlet
) -> dict[np.datetime64, FloatArray]:
    """(n_categories,) logs of the population's observed over its expected shares, by cutoff.

    A year of data holds each season once, so a model can only memorize what everybody took in a
    period. Training adds these shifts to the prior, so that scores learn what is personal. Windows
    of periods of events have no cutoff in common, and no shift.
    """
    if windows[0].history.period_length.unit == "events":
        return {}
    by_cutoff: dict[np.datetime64, list[Window]] = {}
    for window in windows:
        by_cutoff.setdefault(window.history.cutoff, []).append(window)
    shifts = {}
    for cutoff, part in by_cutoff.items():
        observed = target_counts(part)
        expected = prior.category_weights([window.history for window in part])
        expected *= observed.sum(axis=1, keepdims=True)
        shifts[cutoff] = np.log((observed.sum(axis=0) + 0.5) / (expected.sum(axis=0) + 0.5))
    return shifts
