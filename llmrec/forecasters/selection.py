"""Which forecasters to mix, and how: chosen on held-out weights of the validation windows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

import numpy as np

from llmrec.data.counts import target_counts
from llmrec.data.periods import Window
from llmrec.data.windows import MIN_CALIBRATION_WINDOWS, MIN_FIT_WINDOWS
from llmrec.errors import TrainingError
from llmrec.forecast import Forecaster
from llmrec.forecasters.counting import DecayedDirichlet
from llmrec.forecasters.mixture import GatedMixture
from llmrec.forecasters.pool import MIN_WEIGHT, LogLinearPool
from llmrec.forecasters.precomputed import HeldOutPredictions, out_of_sample_weights
from llmrec.metrics import bootstrap_interval, log_loss
from llmrec.types import FloatArray

Form = Literal["counting", "single", "constant weights", "log-linear pool", "gate"]
Interval = tuple[float, float, float]  # mean, low, high; 95 %
Experts = Mapping[str, Forecaster]

# From the simplest on. One with more to fit must be better by more than noise.
MIXTURES: dict[Form, Callable[[Experts], Any]] = {
    "constant weights": lambda experts: GatedMixture(experts, constant=True),
    "log-linear pool": LogLinearPool,
    "gate": GatedMixture,
}
MARGIN = 0.1  # standard errors of the paired difference by which the less simple must be better


@dataclass(frozen=True)
class MemberFigures:
    """What one expert is worth, in nats per event on held-out predictions.

    Attributes
    ----------
    loss
        Its log-loss; None if it has none.
    gain
        What it takes off the loss of counting.
    weight
        Its mean weight in the mixture, or its exponent in a log-linear pool; 0 if it is not kept.
    worth
        What the mixture loses without it, fitted anew. Of an expert that is not kept: what was lost
        when it was left out. None where there was no mixture to try.
    kept, reason
        Whether it is part of the forecaster, and why.
    """

    name: str
    loss: float | None
    gain: Interval | None
    weight: float
    worth: Interval | None
    kept: bool
    reason: str


@dataclass(frozen=True, eq=False)
class Selection:
    """The forecaster that was chosen, and the figures by which it was.

    Attributes
    ----------
    forecaster
        A mixture of the experts that were kept, the best of them, or counting.
    held_out
        Its weights of the validation windows, of fits without these people: what is fitted on top
        of it may be fitted on them. Which experts and which form were kept they had a say in.
    form
        How experts are mixed, or that one of them or counting was taken.
    reason
        Why, in a sentence.
    loss, gain
        Log-loss of ``held_out``, and what this takes off the loss of counting; None if not judged.
    members
        Figures of all experts, by name.
    """

    forecaster: Forecaster
    held_out: HeldOutPredictions
    form: Form
    reason: str
    loss: float | None = None
    gain: Interval | None = None
    members: tuple[MemberFigures, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON: all but the forecaster and its weights."""
        members = [asdict(member) for member in self.members]
        values = {name: getattr(self, name) for name in ("form", "reason", "loss", "gain")}
        return values | {"members": members}


def select_mixture(
    experts: Mapping[str, Forecaster | Exception],
    validation: Sequence[Window],
    seed: int = 0,
    *,
    counting: Forecaster | None = None,
    fallback: str = "",
) -> Selection:
    """Choose a mixture of experts, or one of them, by held-out loss on validation windows.

    Each way to mix is cross-validated over people. One that has more to fit is preferred only if it
    is better by more than noise (`MARGIN`), and an expert stays only if the mixture is worse
    without it by as much. Few validation windows decide nothing: then it is the ``fallback``.

    Parameters
    ----------
    experts
        Fitted forecasters by name; an exception stands for one that could not be fitted.
    validation
        Windows whose held-out weights the experts have (`out_of_sample_weights`).
    counting
        What gains are measured against. None: the expert called "DecayedDirichlet", otherwise
        counting that is fitted on the windows.
    fallback
        Name of the expert to take where nothing can be decided; if there is none: counting.

    Raises
    ------
    DataError
        If an expert was fitted on the windows and has no held-out weights of them, or was fitted on
        later ones.
    """
    failed = {name: e for name, e in experts.items() if isinstance(e, Exception)}
    fitted = {name: e for name, e in experts.items() if not isinstance(e, Exception)}
    if counting is None:
        counting = fitted.get("DecayedDirichlet") or _fit_counting(validation)
    if len(validation) < MIN_CALIBRATION_WINDOWS:
        why = f"{len(validation)} validation windows; {MIN_CALIBRATION_WINDOWS} decide between any"
        return _choose_without_trial(counting, validation, why, failed, fitted, fallback)
    trial = _Trial(validation, seed)
    for name, expert in sorted(fitted.items()):
        try:
            trial.add(name, expert)
        except TrainingError as error:
            failed[name] = error
    if not trial.experts:
        why = "no expert could be fitted"
        return _choose_without_trial(counting, validation, why, failed, {}, fallback)
    return _judged(trial, _choose(trial), counting, failed)


def _judged(
    trial: _Trial, found: _Choice, counting: Forecaster, failed: Mapping[str, Exception]
) -> Selection:
    """Give what was chosen with its figures."""
    base = log_loss(out_of_sample_weights(counting, trial.validation), trial.targets)
    forecaster, held_out = trial.build(found.form, found.names)
    members = [_figures(trial, found, name, base) for name in trial.experts]
    members += [_failure(name, error) for name, error in failed.items()]
    losses = trial.losses(found.form, found.names)
    return Selection(
        forecaster,
        held_out,
        found.form,
        _reason(trial, found),
        float(np.nanmean(losses)),
        bootstrap_interval(base - losses),
        tuple(sorted(members, key=lambda member: member.name)),
    )


@dataclass(eq=False)
class _Trial:
    """Held-out losses of every mixture that is tried, each fitted once."""

    validation: Sequence[Window]
    seed: int
    experts: dict[str, Forecaster] = field(default_factory=dict)
    known: dict[str, FloatArray] = field(default_factory=dict)  # weights of each expert
    found: dict[tuple[Form, tuple[str, ...]], FloatArray] = field(default_factory=dict)
    weights: dict[tuple[Form, tuple[str, ...]], dict[str, float]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.targets = target_counts(self.validation)

    def add(self, name: str, expert: Forecaster) -> None:
        self.known[name] = out_of_sample_weights(expert, self.validation)
        self.experts[name] = expert

    def build(self, form: Form, names: tuple[str, ...]) -> tuple[Forecaster, HeldOutPredictions]:
        """Fit a mixture of experts, or give the one; with the held-out weights."""
        if form == "single":
            held_out = HeldOutPredictions.of(self.validation, self.known[names[0]])
            self.weights[form, names] = {names[0]: 1.0}
            return self.experts[names[0]], held_out
        mixture = MIXTURES[form]({name: self.experts[name] for name in names})
        mixture.fit(self.validation, self.seed, self.known)
        means = dict(zip(mixture.experts, mixture.mean_weights.tolist(), strict=True))
        self.weights[form, names] = means
        return mixture, mixture.held_out

    def losses(self, form: Form, names: tuple[str, ...]) -> FloatArray:
        """(n_windows,) held-out log-loss."""
        if (form, names) not in self.found:
            _, held_out = self.build(form, names)
            weights = np.maximum(held_out.weights, MIN_WEIGHT)
            self.found[form, names] = log_loss(weights, self.targets)
        return self.found[form, names]


@dataclass(frozen=True)
class _Choice:
    form: Form
    names: tuple[str, ...]
    left_out: Mapping[str, FloatArray] = field(default_factory=dict)  # by what each loss rose


def _choose(trial: _Trial) -> _Choice:
    """Choose the form of all experts together, then leave out those that it is as good without."""
    names = tuple(trial.experts)
    singles = {name: float(np.nanmean(trial.losses("single", (name,)))) for name in names}
    best = _Choice("single", (min(singles, key=lambda name: singles[name]),))
    if len(names) == 1:
        return best
    for form in MIXTURES:
        if _is_better(trial.losses(form, names), trial.losses(best.form, best.names)):
            best = _Choice(form, names)
    if best.form == "single":
        return best
    found, alone = _leave_out(trial, best), (min(singles, key=lambda name: singles[name]),)
    if _is_better(trial.losses(found.form, found.names), trial.losses("single", alone)):
        return found
    return _Choice("single", alone, found.left_out)


def _leave_out(trial: _Trial, best: _Choice) -> _Choice:
    """Try the mixture without each expert once, those of least weight first."""
    names, left_out = best.names, {}
    least = trial.losses(best.form, names)
    weights = trial.weights[best.form, names]
    for name in sorted(names, key=lambda name: abs(weights[name])):
        fewer = tuple(other for other in names if other != name)
        form: Form = best.form if len(fewer) > 1 else "single"
        losses = trial.losses(form, fewer)
        if _is_better(least, losses):
            continue
        left_out[name] = losses - trial.losses(best.form, names)
        names = fewer
        if np.nanmean(losses) < np.nanmean(least):
            least = losses
        if form == "single":
            return _Choice(form, names, left_out)
    return _Choice(best.form, names, left_out)


def _is_better(losses: FloatArray, others: FloatArray) -> bool:
    """Whether losses are smaller than others by more than a part of the standard error."""
    gains = (others - losses)[~np.isnan(others - losses)]
    error = gains.std() / np.sqrt(max(1, len(gains)))
    return bool(gains.mean() > MARGIN * error)


def _figures(trial: _Trial, found: _Choice, name: str, base: FloatArray) -> MemberFigures:
    losses = trial.losses("single", (name,))
    kept, worth = name in found.names, None
    if kept and found.form != "single":
        fewer = tuple(other for other in found.names if other != name)
        form: Form = found.form if len(fewer) > 1 else "single"
        without = trial.losses(form, fewer) - trial.losses(found.form, found.names)
        worth = bootstrap_interval(without)
    elif name in found.left_out:
        worth = bootstrap_interval(found.left_out[name])
    if kept:
        reason = "best alone" if found.form == "single" else "the mixture is worse without it"
    elif worth:
        reason = "the mixture is as good without it"
    else:
        reason = "no mixture is better than the best expert alone"
    weight = trial.weights[found.form, found.names].get(name, 0.0)
    gain = bootstrap_interval(base - losses)
    return MemberFigures(name, float(np.nanmean(losses)), gain, weight, worth, kept, reason)


def _failure(name: str, error: Exception) -> MemberFigures:
    return MemberFigures(name, None, None, 0.0, None, False, f"{type(error).__name__}: {error}")


def _reason(trial: _Trial, found: _Choice) -> str:
    if len(trial.experts) == 1:
        return "there is one expert"
    single = min(float(np.nanmean(trial.losses("single", (name,)))) for name in trial.experts)
    if found.form == "single":
        return f"no mixture is better than {found.names[0]} alone ({single:.4f} nats per event)"
    mixed = float(np.nanmean(trial.losses(found.form, found.names)))
    return (
        f"held out, {found.form} of {len(found.names)} experts has {mixed:.4f} nats per event, the "
        f"best expert alone {single:.4f}"
    )


def _fit_counting(validation: Sequence[Window]) -> DecayedDirichlet:
    prior = DecayedDirichlet()
    return prior.fit(validation) if len(validation) >= MIN_FIT_WINDOWS else prior


def _choose_without_trial(
    counting: Forecaster,
    validation: Sequence[Window],
    why: str,
    failed: Mapping[str, Exception],
    fitted: Experts,
    fallback: str,
) -> Selection:
    """Take the fallback, or counting, and judge nothing."""
    chosen = fitted.get(fallback, counting)
    held_out = HeldOutPredictions({})
    if validation:
        weights = out_of_sample_weights(chosen, validation)
        held_out = HeldOutPredictions.of(validation, weights)
    members = [_failure(name, error) for name, error in failed.items()]
    for name in fitted:
        kept = name == fallback
        members.append(MemberFigures(name, None, None, float(kept), None, kept, why))
    ordered = tuple(sorted(members, key=lambda member: member.name))
    form: Form = "single" if fallback in fitted else "counting"
    return Selection(chosen, held_out, form, why, members=ordered)
