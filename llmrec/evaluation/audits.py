"""Audits: the change of a forecaster's loss when histories are altered in one respect."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from llmrec.data.catalog import Catalog
from llmrec.data.counts import target_counts
from llmrec.data.dataset import Dataset
from llmrec.data.names import MAX_CATEGORY_LENGTH, clean_text
from llmrec.data.periods import History, Window
from llmrec.data.provenance import TrainingSpan
from llmrec.data.splits import EvaluationSplits, sample_windows
from llmrec.errors import DataError
from llmrec.evaluation.evaluator import predict, require_unseen_targets
from llmrec.forecast import Forecast, Forecaster
from llmrec.forecasters.calibration import Calibration
from llmrec.forecasters.registry import ForecasterRegistry
from llmrec.language.codec import codec_for
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray

if TYPE_CHECKING:
    from llmrec.language.model import LanguageModel

AUDITS = ("order", "names", "titles", "length")
AUDIT_LENGTHS = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # newest events left by the audit of length
CENTERING_WINDOWS = 50  # validation windows that the mean category score is taken over
COLUMNS = ["model", "metric", "value", "low", "high", "n"]
ForecasterFactory = Callable[[Catalog], Mapping[str, Forecaster]]
Row = tuple[str, str, float, float, float, int]


def shuffle_events(windows: Sequence[Window], seed: int = 0) -> list[Window]:
    """Permute the items of each history's events at random.

    Times and periods stay, so a period has as many events as before. The log is a new one; events
    at or after a user's cutoff stay. The shuffle also changes what everybody took in a period,
    which counting falls back on, and what was taken up to a time, where cutoffs differ: compare a
    change with that of the mean, which uses no order.

    Raises
    ------
    DataError
        If a user has two windows (what is history in one may be target in the other), or windows
        are of different logs.
    """
    if not windows:
        return []
    log = windows[0].history.log
    users = {window.history.user_idx for window in windows}
    if len(users) < len(windows) or any(window.history.log is not log for window in windows):
        raise DataError(
            f"{len(windows)} windows of {len(users)} users: a shuffled log needs one window a "
            "user, all of one log. Shuffle the windows of each split apart."
        )
    order = np.arange(len(log))
    for window in windows:
        ids = window.history.event_ids
        rng = np.random.default_rng((seed, window.history.user_idx))
        order[ids.start : ids.stop] = rng.permutation(order[ids.start : ids.stop])
    shuffled = replace(
        log,
        item_idx=log.item_idx[order],
        source_row=log.source_row[order],
        rating=None if log.rating is None else log.rating[order],
    )
    return [
        Window(replace(window.history, log=shuffled), replace(window.target, log=shuffled))
        for window in windows
    ]


def truncate_histories(windows: Sequence[Window], n: int) -> list[Window]:
    """Cut each history to its newest n events; 0 leaves a user without events.

    Calendar periods stay, emptied; periods of events are cut with their events. The log stays
    whole, so the other events still count in what everybody took. DataError if n < 0.
    """
    if n < 0:
        raise DataError(f"n={n}: a history cannot have fewer than 0 events.")
    return [replace(window, history=_truncate(window.history, n)) for window in windows]


def rename_categories(
    windows: Sequence[Window], names: Mapping[str, str] | None = None, seed: int = 0
) -> list[Window]:
    """Give categories other names; their order and their items stay.

    Parameters
    ----------
    names
        Name to new name, for those that change. None: all become "group 01", "group 02", ..., the
        numbers assigned at random.

    Raises
    ------
    DataError
        If a name is no category, or two categories would have the same name.
    """
    if not windows:
        return []
    catalog = windows[0].history.catalog
    if names is None:
        found = _numbered_names("group", catalog.n_categories, 2, seed)
    else:
        if unknown := sorted(set(names) - set(catalog.categories)):
            raise DataError(f"{unknown[0]!r} is no category of this catalog.")
        found = tuple(
            clean_text(names.get(category, category), MAX_CATEGORY_LENGTH)
            for category in catalog.categories
        )
    if invalid := sorted({name for name in found if found.count(name) > 1 or not name}):
        raise DataError(f"categories must have names of their own; {invalid[0]!r} is not one.")
    return _with_catalog(windows, replace(catalog, categories=found))


def anonymize_titles(windows: Sequence[Window], seed: int = 0) -> list[Window]:
    """Rename the items to "item 0001", "item 0002", ..., the numbers assigned at random."""
    if not windows:
        return []
    catalog = windows[0].history.catalog
    titles = _numbered_names("item", catalog.n_items, 4, seed)
    return _with_catalog(windows, replace(catalog, titles=titles))


def audit(
    kind: str,
    make: ForecasterFactory,
    windows: Sequence[Window],
    *,
    dataset: str = "",
    split: str = "",
    seed: int = 0,
) -> pd.DataFrame:
    """Evaluate forecasters on altered against unaltered histories of the same users.

    Parameters
    ----------
    kind
        "order": `shuffle_events`. "names": `rename_categories`. "titles": `anonymize_titles`.
        "length": `truncate_histories` to the `AUDIT_LENGTHS`.
    make
        Makes forecasters by name, fitted on unaltered data, for a catalog, as a language model
        needs the names of categories. Called once for each catalog.
    windows
        One a user, of one log and catalog.

    Returns
    -------
    pd.DataFrame
        Rows: dataset, split, audit, model, metric, value, low, high, n (users with a target), with
        95 % intervals over users, in nats per event. Metrics: log_loss_before, log_loss_after and
        log_loss_change, their paired difference (> 0: the forecaster used what was altered).
        "length" has a column events too, and metrics log_loss and log_loss_change (against the
        whole history); its largest number of events is that of the longest history.

    Raises
    ------
    DataError
        If there is no such audit or no window, or a forecaster was fitted on events of the targets.
    """
    if kind not in AUDITS:
        raise DataError(f"no audit is called {kind!r}; choose from {', '.join(AUDITS)}.")
    if not windows:
        raise DataError(f"{dataset} {split}: no window to audit on")
    forecasters = _make_forecasters(make, windows[0].history.catalog, windows)
    before = {name: _losses(forecaster, windows) for name, forecaster in forecasters.items()}
    if kind == "length":
        table = _length_table(forecasters, before, windows)
    else:
        altered = _alter(kind, windows, seed)
        if altered[0].history.catalog is not windows[0].history.catalog:
            forecasters = _make_forecasters(make, altered[0].history.catalog, windows)
        after = {name: _losses(forecaster, altered) for name, forecaster in forecasters.items()}
        table = _change_table(before, after)
    labels = {"dataset": dataset, "split": split, "audit": kind}
    for position, (column, value) in enumerate(labels.items()):
        table.insert(position, column, value)
    return table


def audit_dataset(
    dataset: Dataset,
    kind: str,
    names: Sequence[str],
    model: LanguageModel | None = None,
    n: int | None = None,
    seed: int = 0,
) -> pd.DataFrame:
    """Audit forecasters of the registry by name on n windows of a log's first test split.

    The mean and counting are always audited: the mean uses no order, so its change is that of what
    everybody took. A language model, if there is one, is audited with its category scores added in
    full to counting.
    """
    splits = EvaluationSplits.of(dataset)
    dataset, validation = splits.dataset, splits.windows["validation"]
    registry = ForecasterRegistry(splits.training, validation, seed)
    split, tests = next(iter(splits.tests.items()))
    audited = dict.fromkeys(("Mean", "DecayedDirichlet", *names))

    def make(catalog: Catalog) -> dict[str, Forecaster]:
        found: dict[str, Forecaster] = {
            name: _ByCategoryIndex(registry[name], dataset.catalog) for name in audited
        }
        if model is not None:
            histories = [
                replace(window.history, catalog=catalog)
                for window in sample_windows(validation, CENTERING_WINDOWS, seed)
            ]
            found["LLM x counting (a = 1)"] = _uncalibrated_llm(
                model, replace(dataset, catalog=catalog), found["DecayedDirichlet"], histories
            )
        return found

    windows = sample_windows(tests, n, seed)
    return audit(kind, make, windows, dataset=dataset.name, split=split, seed=seed)


@dataclass(frozen=True)
class _ByCategoryIndex:
    """A numeric forecaster, to which categories are indices: it is given its own catalog."""

    forecaster: Forecaster
    catalog: Catalog

    def forecast(self, histories: Sequence[History]) -> list[Forecast]:
        return self.forecaster.forecast(
            [replace(history, catalog=self.catalog) for history in histories]
        )

    @property
    def fitted(self) -> TrainingSpan | None:
        found: TrainingSpan | None = getattr(self.forecaster, "fitted", None)
        return found


def _uncalibrated_llm(
    model: LanguageModel, dataset: Dataset, prior: Forecaster, histories: Sequence[History]
) -> Forecaster:
    """Add category scores to a prior with weight 1, less their mean over some histories."""
    from llmrec.forecasters.llm import LLMForecaster

    forecaster = LLMForecaster(model, codec_for(dataset, model), prior)
    center = forecaster.category_scores(histories).mean(axis=0)
    forecaster.calibration = Calibration(1.0, center, np.zeros_like(center))
    return forecaster


def _alter(kind: str, windows: Sequence[Window], seed: int) -> list[Window]:
    if kind == "order":
        return shuffle_events(windows, seed)
    if kind == "names":
        return rename_categories(windows, seed=seed)
    return anonymize_titles(windows, seed)


def _make_forecasters(
    make: ForecasterFactory, catalog: Catalog, windows: Sequence[Window]
) -> Mapping[str, Forecaster]:
    """Make forecasters, none of which may be fitted on the targets of the unaltered windows."""
    forecasters = make(catalog)
    for name, forecaster in forecasters.items():
        # Checked here, because an altered log has another fingerprint than the fit.
        require_unseen_targets(name, forecaster, windows)
    return forecasters


def _losses(forecaster: Forecaster, windows: Sequence[Window]) -> FloatArray:
    """(n_windows,) log-loss, NaN without a target."""
    return log_loss(predict(forecaster, windows)[0], target_counts(windows))


def _change_table(
    before: Mapping[str, FloatArray], after: Mapping[str, FloatArray]
) -> pd.DataFrame:
    rows: list[Row] = []
    for model, loss in before.items():
        rows.append(_row(model, "log_loss_before", loss))
        rows.append(_row(model, "log_loss_after", after[model]))
        rows.append(_row(model, "log_loss_change", after[model] - loss))
    return pd.DataFrame(rows, columns=COLUMNS)


def _length_table(
    forecasters: Mapping[str, Forecaster],
    whole: Mapping[str, FloatArray],
    windows: Sequence[Window],
) -> pd.DataFrame:
    longest = max(window.history.n_events for window in windows)
    tables = []
    for n in (*(length for length in AUDIT_LENGTHS if length < longest), longest):
        truncated = truncate_histories(windows, n)
        rows: list[Row] = []
        for model, forecaster in forecasters.items():
            loss = whole[model] if n == longest else _losses(forecaster, truncated)
            rows.append(_row(model, "log_loss", loss))
            rows.append(_row(model, "log_loss_change", loss - whole[model]))
        table = pd.DataFrame(rows, columns=COLUMNS)
        table.insert(1, "events", n)
        tables.append(table)
    return pd.concat(tables, ignore_index=True)


def _row(model: str, metric: str, values: FloatArray) -> Row:
    return (model, metric, *bootstrap_interval(values), int(np.isfinite(values).sum()))


def _truncate(history: History, n: int) -> History:
    offsets = np.maximum(history.offsets, history.offsets[-1] - n)
    if history.period_length.unit != "events":
        return replace(history, offsets=offsets)
    filled = np.flatnonzero(np.diff(offsets))
    if not len(filled):
        # Somebody without events has one empty period, which starts and ends at the cutoff.
        return replace(history, offsets=offsets[-2:], bounds=np.repeat(history.bounds[-1:], 2))
    offsets = offsets[filled[0] :]
    bounds = np.append(history.log.timestamp[offsets[:-1]], history.bounds[-1])
    return replace(history, offsets=offsets, bounds=bounds)


def _numbered_names(word: str, n: int, width: int, seed: int) -> tuple[str, ...]:
    """(n,) the word with numbers from 1 on, of equal width and in random order."""
    width = max(width, len(str(n)))
    numbers = np.random.default_rng(seed).permutation(n) + 1
    return tuple(f"{word} {number:0{width}d}" for number in numbers.tolist())


def _with_catalog(windows: Sequence[Window], catalog: Catalog) -> list[Window]:
    return [
        Window(replace(window.history, catalog=catalog), replace(window.target, catalog=catalog))
        for window in windows
    ]
