"""A person removed from an engine, with a certificate of what was changed and what was not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from importlib.util import find_spec
from typing import get_args

import numpy as np

from llmrec.data.calendar import to_datetime64
from llmrec.data.dataset import Dataset
from llmrec.data.forget_certificate import (
    ChangedPart,
    ForgetCertificate,
    Trained,
    UnchangedPart,
)
from llmrec.data.ids import format_id
from llmrec.data.interactions import Interactions
from llmrec.data.log_updates import remove_person, without_person
from llmrec.engine_append import UpdatableEngine, with_dataset
from llmrec.engine_config import EngineParts
from llmrec.engine_refit import FitPlan, refit_parts
from llmrec.engine_settings import N_FORGOTTEN, Effort
from llmrec.errors import DataError
from llmrec.ranking.blend import scorer_name
from llmrec.ranking.factors import ImplicitALS
from llmrec.ranking.registry import is_net

STATISTICS, ADAPTER = "statistics of items", "adapter of the language model"
REFRESH = "`refresh` counts them again, without the person"
FIT = "a fit on what is left makes it again"
TRAIN = "train another one on what is left, or load the engine with model=None"
N_WINDOWS = 500  # that a language model is calibrated on, as of `InterestEngine.fit`


class ForgettingEngine(UpdatableEngine):
    """An engine that takes events, and that a person can be removed from."""

    def forget(self, user_id: object, *, trained: Trained = "keep") -> ForgetCertificate:
        """Remove a person's events from the log, and from what everybody took.

        So does what the language model holds of their prompts. Statistics of items have seen them
        until `refresh`, after which they are those of a log without the person. An engine without
        a log removes the events that were appended.

        Parameters
        ----------
        trained
            What becomes of forecasters, trees, nets, calibration and adapter that saw the person.
            "keep": they stay, and the certificate names them. "fit": `fit` follows, with the effort
            and seed of before; it fits all but the adapter. "refuse": nothing is done if there are
            any.

        Returns
        -------
        ForgetCertificate
            What was changed, with counts, and what saw the person and was not.

        Raises
        ------
        DataError
            If the person is unknown, near ids are named; the log has nobody else, or too few for a
            fit; or something is refused. The engine has not changed then.
        """
        if trained not in get_args(Trained):
            raise DataError(f"trained is {trained!r}; write {', '.join(get_args(Trained))}")
        try:
            with self._refreshing if trained == "fit" else nullcontext(), self._writing:
                before = self._parts
                seen = parts_that_saw(before, first_event(before.dataset.log, user_id))
                if trained == "refuse" and any(one.part != STATISTICS for one in seen):
                    raise DataError(_say_refused(seen))
                rest = forget_person(before, user_id)
                if trained == "fit":
                    self._take(_fit_again(rest))
                else:
                    self._parts = _with_count(rest, seen)
        finally:  # somebody whom no event is left of may still have been read
            if self.language is not None:
                self.language.forget(format_id(user_id))
        return _certificate(before, self._parts, seen, trained)


def forget_person(parts: EngineParts, user_id: object) -> EngineParts:
    """Give the parts without a person's events, see `ForgettingEngine.forget`."""
    dataset = parts.dataset
    log = dataset.log.align_to(dataset.catalog)
    user = log.user_index(user_id)
    rest, shown, everybody = remove_person(log, user), dataset.impressions, dataset.population
    if shown is not None:
        shown = shown.select(np.flatnonzero(shown.user_ids != log.user_ids[user]))
    if everybody is not None:
        everybody = without_person(everybody, log, user)
    elif not len(rest):
        raise DataError("these are the only events of the log: without them there is no engine")
    changed = replace(dataset, log=rest, population=everybody, impressions=shown)
    return replace(with_dataset(parts, changed, parts.cutoff), n_forgotten=parts.n_forgotten + 1)


def first_event(log: Interactions, user_id: object) -> np.datetime64:
    """Give the time of a person's first event; DataError names near ids if there is nobody."""
    first: np.datetime64 = log.timestamp[log.user_offsets[log.user_index(user_id)]]
    return first


def parts_that_saw(parts: EngineParts, first: np.datetime64) -> tuple[UnchangedPart, ...]:
    """Name what was fitted on events of a person, and has seen them until it is fitted again.

    An engine without its log does not know whom it was fitted on: it may have been anybody.

    Parameters
    ----------
    first
        The time of the person's first event.
    """
    settings = parts.settings

    def saw(before: str) -> bool:
        return bool(before and (not parts.has_whole_log or first < to_datetime64(before)))

    trained_before = settings.trained_before or settings.fitted_before
    found = []
    if saw(settings.fitted_before):
        found.append(UnchangedPart(STATISTICS, "", settings.fitted_before, REFRESH))
    if saw(trained_before):
        names = trained_parts(parts)
        found += [UnchangedPart(name, "", trained_before, FIT) for name in names]
    about = None if parts.language is None else parts.language.about
    if about is not None and about.dataset == parts.dataset.name and saw(about.cutoff):
        found.append(UnchangedPart(ADAPTER, "", about.cutoff, TRAIN))
    return tuple(found)


def trained_parts(parts: EngineParts) -> list[str]:
    """Name what a fit chose or trained, and `refresh` does not fit again."""
    names, settings = list[str](), parts.settings
    if getattr(parts.prior, "fitted", None) is not None:
        experts = ", ".join(getattr(parts.prior, "experts", {}))
        names.append(f"forecaster {type(parts.prior).__name__}" + f" of {experts}" * bool(experts))
    if settings.effort:
        names.append("choice and weights of members, and how hard forecasts tilt lists")
    blends = [one for one in (parts.blend, parts.new_items) if one is not None]
    scorers = {scorer_name(one): one for blend in blends for one in blend.scorers}
    names += [f"net {name}" for name, one in scorers.items() if is_net(one)]
    if find_spec("implicit") is None:  # which fits it
        names += [name for name, one in scorers.items() if isinstance(one, ImplicitALS)]
    if any(blend.trees is not None for blend in blends):
        names.append("trees")
    if parts.statements is not None:
        names.append("probabilities of statements")
    if parts.later_periods.stored() is not None:
        names.append("forecasters of later periods")
    if parts.language is not None and parts.language.stored_calibration is not None:
        names.append("calibration of the language model")
    return names


def _say_refused(seen: Sequence[UnchangedPart]) -> str:
    trained = [one.part for one in seen if one.part != STATISTICS]
    return (
        f"nothing is forgotten: {'; '.join(trained)} saw this person. trained='fit' fits all but "
        "an adapter again, and 'keep' leaves them as they are and names them."
    )


def _fit_again(parts: EngineParts) -> EngineParts:
    """Give the parts fitted on the log as it is now, as they were fitted before."""
    effort: Effort = "quick"
    for name in get_args(Effort):
        effort = name if name == parts.settings.effort else effort
    plan = FitPlan(effort, parts.settings.seed, None, None, N_WINDOWS, (), None, None)
    return refit_parts(parts, plan)


def _with_count(parts: EngineParts, seen: Sequence[UnchangedPart]) -> EngineParts:
    """Count, in what is saved with the engine, a person whom it was trained on."""
    if all(one.part == STATISTICS for one in seen):
        return parts
    report = dict(parts.settings.report)
    report[N_FORGOTTEN] = int(report.get(N_FORGOTTEN, 0)) + 1
    return replace(parts, settings=replace(parts.settings, report=report))


def _n_events(dataset: Dataset) -> int:
    """Count what everybody took, without counting it by category and time."""
    return len(dataset.log) if dataset.population is None else dataset.population.n_events


def _certificate(
    before: EngineParts, after: EngineParts, seen: Sequence[UnchangedPart], trained: Trained
) -> ForgetCertificate:
    """Say what differs between the parts before and after."""
    old, new = before.dataset, after.dataset
    parts = [
        ChangedPart("log of the engine", "", "events", len(old.log), len(new.log)),
        ChangedPart("what everybody took", "", "events", *map(_n_events, (old, new))),
    ]
    if old.impressions is not None and new.impressions is not None:
        shown = old.impressions.n_impressions, new.impressions.n_impressions
        parts.append(ChangedPart("lists that people were shown", "", "lists", *shown))
    again = [one for one in seen if trained == "fit" and one.part != ADAPTER]
    people = "people it was fitted on", old.log.n_users, new.log.n_users
    parts += [ChangedPart(one.part, "", *people) for one in again]
    changed = tuple(one for one in parts if one.before != one.after)
    made = str(np.datetime64("now", "ms"))
    return ForgetCertificate("", made, changed, (), tuple(one for one in seen if one not in again))
