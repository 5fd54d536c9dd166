"""Fits what an engine forecasts and ranks with, at one of three efforts; a killed fit goes on."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, get_args

from llmrec.data.calendar import MILLISECOND
from llmrec.data.dataset import Dataset
from llmrec.data.periods import Window
from llmrec.data.splits import past_windows, sample_windows
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS, MIN_FIT_WINDOWS
from llmrec.engine_members import PRETRAINED, MemberFit, max_windows
from llmrec.engine_settings import Effort
from llmrec.errors import DataError
from llmrec.fit_store import FitStore
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet, candidate_mixes
from llmrec.forecasters.dispersion import DEFAULT_DISPERSION
from llmrec.forecasters.precomputed import HeldOutPredictions, PrecomputedForecaster
from llmrec.forecasters.pretrained_forecaster import PretrainedForecaster
from llmrec.forecasters.selection import MemberFigures, Selection
from llmrec.forecasters.statement_probabilities import StatementProbabilities
from llmrec.ranking.blend import Blend
from llmrec.ranking.fitting import FALLBACK_STRENGTH, fallback_blend, fit_strength
from llmrec.ranking.new_items import NewItemLists
from llmrec.ranking.selection import ListSelection

MAX_SMALL_LOG_WINDOWS = 2_000  # the newest, where the last period has too few to choose by


@dataclass(frozen=True, eq=False)
class FittedEngine:
    """What a fit gives an engine, but for what a language model adds.

    Attributes
    ----------
    prior
        The forecaster.
    held_out
        Its weights of ``windows`` before it was fitted on them; None where nothing was fitted.
    windows
        Those of the last period, by which members were chosen.
    blend, strength, list_selection
        What ranks, how hard the forecast tilts it, and its figures; None where nothing was fitted.
    statements
        Probabilities of statements about the next period; None where nothing was fitted.
    everybody, everybody_weights
        What they were fitted on: windows of the last period, whatever was taken in it, and weights
        of the forecaster that it was not fitted on.
    new_items
        What ranks the items that nobody has taken yet; None: the blend does.
    effort
        What was done: less than was asked for where the log is too small; "" for nothing.
    report
        Plain values: the figures of all members.
    """

    prior: Forecaster
    held_out: HeldOutPredictions | None
    windows: Sequence[Window]
    blend: Blend
    strength: float
    list_selection: ListSelection | None
    statements: StatementProbabilities | None
    effort: Effort | str
    report: dict[str, Any]
    new_items: NewItemLists | None = None
    everybody: Sequence[Window] = ()
    everybody_weights: HeldOutPredictions = field(default_factory=lambda: HeldOutPredictions({}))


def fit_engine(
    dataset: Dataset,
    effort: Effort,
    *,
    seed: int = 0,
    without: Collection[str] = (),
    store: FitStore | None = None,
    show: Callable[[str], None] = lambda line: None,
) -> FittedEngine:
    """Fit forecaster and list on a log, and choose their members on its last period.

    Parameters
    ----------
    effort
        "quick": counting, corrected by nets of other logs, and statistics of items. "standard": a
        mixture of numeric experts, more statistics, and trees over them. "best": nets trained on
        the log among both.
    without
        Names of members not to use.
    store
        Where nets are stored as soon as they are trained, and looked up.
    show
        Is given a line of progress for each member.

    Raises
    ------
    DataError
        If there is no such effort, or no member is called as one of ``without``.
    """
    if effort not in get_args(Effort):
        raise DataError(f"effort is {effort!r}; it should be one of {', '.join(get_args(Effort))}")
    folds, remarks = _windows_to_fit_on(dataset, seed)
    done, reason = suitable_effort(effort, folds)
    report: dict[str, Any] = {"asked": effort, "reason": reason}
    used = store or FitStore(None)
    fit = MemberFit(dataset, folds or [[]], done or effort, seed, frozenset(without), used, show)
    fit.check_names()
    if not done:
        return _fit_small_log(dataset, folds, report, without)
    fit.remarks += remarks
    selection = fit.select_forecaster()
    lists = fit.select_list()
    everybody, weights = fit.predict_everybody(selection)
    statements = StatementProbabilities.fit(everybody, weights.lookup(everybody), seed=seed)
    prior = fit.with_newest_nets(selection.forecaster)
    reason = "; ".join([selection.reason, *fit.remarks])
    report |= {
        "windows": len(folds[0]),
        "forecast": selection.to_dict() | {"reason": reason},
        "statements": statements.report,
        "list": lists.to_dict() | _windows_of_lists(lists, folds),
    }
    repeat = dataset.repeat
    held_out = selection.held_out
    forecaster, blend = held_out_forecaster(held_out, lists.windows), lists.validation_blend
    strength = fit_strength(forecaster, blend, lists.windows, repeat=repeat)
    new_items = NewItemLists.fit(lists, forecaster, repeat)
    report |= {} if new_items is None else {"new_items": new_items.report}
    learned = prior, held_out, folds[0], lists.blend, strength, lists, statements
    return FittedEngine(*learned, done, report, new_items, everybody, weights)


def _windows_to_fit_on(dataset: Dataset, seed: int) -> tuple[list[list[Window]], list[str]]:
    """Give `past_windows`, of the last period no more than `max_windows`, and a remark if fewer."""
    folds = past_windows(dataset)
    if not folds:
        return folds, []
    most, n = max_windows(dataset.catalog.n_categories), len(folds[0])
    remarks = [f"chosen on {most:,} of {n:,} windows"] if n > most else []
    return [sample_windows(folds[0], most, seed), *folds[1:]], remarks


def _windows_of_lists(lists: ListSelection, folds: Sequence[Sequence[Window]]) -> dict[str, Any]:
    """Give how many windows of the last period lists were weighed by, and a remark if not all."""
    n, n_all = len(lists.windows), len(folds[0])
    if n == n_all:
        return {"windows": n}
    return {"windows": n, "reason": f"drawn at random from {n_all:,}"}


def held_out_forecaster(
    held_out: HeldOutPredictions, windows: Sequence[Window]
) -> PrecomputedForecaster:
    """Give held-out weights as forecasts of windows' histories; their dispersion is none's."""
    histories = [window.history for window in windows]
    weights = held_out.lookup(windows)
    return PrecomputedForecaster.of("held out", histories, weights, DEFAULT_DISPERSION, "counting")


def suitable_effort(effort: Effort, folds: Sequence[Sequence[Window]]) -> tuple[Effort | str, str]:
    """Give the effort that a log is large enough for, and why it is another one than was asked for.

    Nothing is chosen on fewer than `MIN_FIT_WINDOWS` windows of the last period; mixtures, trees
    and nets need `MIN_CALIBRATION_WINDOWS` there, and as many in earlier periods.
    """
    n, n_before = len(folds[0]) if folds else 0, sum(map(len, folds[1:]))
    if n < MIN_FIT_WINDOWS:
        return "", (
            f"{n} people have a history and a last period to fit on, and {MIN_FIT_WINDOWS} are "
            "needed: settings are defaults"
        )
    if effort != "quick" and min(n, n_before) < MIN_CALIBRATION_WINDOWS:
        return "quick", (
            f"the log has {n} windows in its last period and {n_before} before, and effort "
            f"{effort!r} needs {MIN_CALIBRATION_WINDOWS} of each"
        )
    return effort, ""


def _fit_small_log(
    dataset: Dataset,
    folds: Sequence[Sequence[Window]],
    report: dict[str, Any],
    without: Collection[str],
) -> FittedEngine:
    """Give default settings to a log that is too short to choose any on its last period.

    What forecasts is fitted on all periods together, if the last has windows and all have enough.
    """
    end = dataset.log.timestamp.max() + MILLISECOND
    mix = candidate_mixes(dataset.histories(end, [0]))[0]
    blend = fallback_blend(dataset, end, without)
    prior: Forecaster = DecayedDirichlet(mix=mix)
    last = folds[0] if folds else []
    windows = [window for fold in reversed(folds) for window in fold]
    windows = windows[-MAX_SMALL_LOG_WINDOWS:]
    if PRETRAINED not in without and len(windows) >= MIN_FIT_WINDOWS:
        prior = PretrainedForecaster().fit(windows)
        why = f"fitted on {len(windows)} windows of all periods: too few to choose by"
        member = MemberFigures(PRETRAINED, None, None, 1.0, None, True, why)
        none = HeldOutPredictions({})
        selection = Selection(prior, none, "single", why, members=(member,))
        report |= {"windows": len(last), "forecast": selection.to_dict()}
    return FittedEngine(prior, None, last, blend, FALLBACK_STRENGTH, None, None, "", report)
